# shellcheck shell=bash
# Sourced by the Slurm scripts: run, and submit the job again while it is incomplete and gets on.
# Takes LAUNCH (array), INPUT and MAX_JOBS from the script.

here=$(dirname "${BASH_SOURCE[0]}")
# In the repository this makes the environment; a script of `pfdhpc init` has put its own on PATH.
if [[ -f $here/setup_env.sh ]]; then
    # shellcheck source=jobscripts/setup_env.sh
    source "$here/setup_env.sh" || exit 1
fi
# shellcheck source=jobscripts/restart.sh
source "$here/restart.sh"
run_job

job=${PFDHPC_JOB:-1}
echo "slurm: job $job of at most $MAX_JOBS, exit code $code, $state, progress $before -> $after"
# The state counts too: a launcher may turn exit code 3 into one of its own (137), but not into 0, 1 or 2.
if [[ $code -le 2 || ($code -ne 3 && $state != incomplete) ]] && ! crashed; then
    exit "$code"
elif [[ $(status reason) == *"/STOP was there"* ]]; then
    echo "slurm: stopped by hand: not submitted again"
elif [[ $asked == TERM ]]; then
    echo "slurm: cancelled: not submitted again"
elif [[ $after == "$before" ]]; then
    echo "slurm: nothing progressed in this job: not submitted again"
elif ((job >= MAX_JOBS)); then
    echo "slurm: submit again by hand to go on"
else
    # The script that runs is a copy in the spool; Slurm knows the original, and what this job was given.
    facts=$(scontrol show job -o "$SLURM_JOB_ID" | head -n 1) # one line for each job of an array or a group
    fact() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" <<<"$facts"; }
    PFDHPC_JOB=$((job + 1)) sbatch --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_NTASKS" \
        --ntasks-per-node="${SLURM_NTASKS_PER_NODE:-$SLURM_NTASKS}" \
        ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"} ${SLURM_JOB_QOS:+--qos="$SLURM_JOB_QOS"} \
        --partition="$SLURM_JOB_PARTITION" --time="$(fact TimeLimit)" "$(fact Command)" "$INPUT"
fi
exit 3
