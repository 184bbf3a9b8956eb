# shellcheck shell=bash
# Sourced by the Slurm scripts: run, and submit the job again while it is incomplete and gets on.
# Takes LAUNCH (array), INPUT and MAX_JOBS from the script.

# shellcheck source=jobscripts/setup_env.sh
source jobscripts/setup_env.sh || exit 1
run=$(python -m pfdhpc where "$INPUT") || exit 2

# A key of RUN/status.json; "none" before the first job.
status() {
    python -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
        "$run/status.json" "$1" 2>/dev/null || echo none
}

before=$(status progress)
"${LAUNCH[@]}" python -m mpi4py -m pfdhpc run "$INPUT" </dev/null &
child=$!
trap 'kill -USR1 "$child"' USR1 TERM
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done

state=$(status state) after=$(status progress) job=${PFDHPC_JOB:-1}
echo "slurm: job $job of at most $MAX_JOBS, exit code $code, $state, progress $before -> $after"
# The state counts too: a launcher may turn exit code 3 into one of its own (137), but not into 0, 1 or 2.
if [[ $code -le 2 || ($code -ne 3 && $state != incomplete) ]]; then
    exit "$code"
elif [[ $after == "$before" ]]; then
    echo "slurm: nothing progressed in this job: not submitted again"
elif ((job >= MAX_JOBS)); then
    echo "slurm: submit again by hand to go on"
else
    # The script that runs is a copy in the spool; Slurm knows the original, and what this job was given.
    facts=$(scontrol show job -o "$SLURM_JOB_ID")
    fact() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" <<<"$facts"; }
    PFDHPC_JOB=$((job + 1)) sbatch --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_NTASKS" \
        --ntasks-per-node="${SLURM_NTASKS_PER_NODE:-$SLURM_NTASKS}" \
        --partition="$SLURM_JOB_PARTITION" --time="$(fact TimeLimit)" "$(fact Command)" "$INPUT"
fi
exit 3
