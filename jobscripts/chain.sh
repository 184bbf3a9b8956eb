# shellcheck shell=bash
# Sourced by slurm-chain.sh and pbs-chain.sh: run, and submit the job again while it is incomplete and gets on.
# Takes LAUNCH (array), INPUT and MAX_JOBS from the job script; from the one that sources it the name of the batch
# system (system), what a SIGTERM means there (stopped), and resubmit, which submits job $((job + 1)).

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
# shellcheck disable=SC2154 # system and stopped come from the script that sources this one
echo "$system: job $job of at most $MAX_JOBS, exit code $code, $state, progress $before -> $after"
# The state counts too: a launcher may turn exit code 3 into one of its own (137), but not into 0, 1 or 2.
if [[ $code -le 2 || ($code -ne 3 && $state != incomplete) ]] && ! crashed; then
    exit "$code"
elif [[ $(status reason) == *"/STOP was there"* ]]; then
    echo "$system: stopped by hand: not submitted again"
elif [[ $asked == TERM ]]; then
    # shellcheck disable=SC2154
    echo "$system: $stopped: not submitted again"
elif [[ $after == "$before" ]]; then
    echo "$system: nothing progressed in this job: not submitted again"
elif ((job >= MAX_JOBS)); then
    echo "$system: submit again by hand to go on"
else
    resubmit
fi
exit 3
