# shellcheck shell=bash
# Sourced by the PBS scripts: run, and submit the job again while it is incomplete and gets on.
# Takes LAUNCH (array), INPUT, SCRIPT (the file to submit again) and MAX_JOBS from the script.

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
echo "pbs: job $job of at most $MAX_JOBS, exit code $code, $state, progress $before -> $after"
# The state counts too: a launcher may turn exit code 3 into one of its own (137), but not into 0, 1 or 2.
if [[ $code -le 2 || ($code -ne 3 && $state != incomplete) ]] && ! crashed; then
    exit "$code"
elif [[ $(status reason) == *"/STOP was there"* ]]; then
    echo "pbs: stopped by hand: not submitted again"
elif [[ $asked == TERM ]]; then
    echo "pbs: deleted, or at the end of its wall-time: not submitted again"
elif [[ $after == "$before" ]]; then
    echo "pbs: nothing progressed in this job: not submitted again"
elif ((job >= MAX_JOBS)); then
    echo "pbs: submit again by hand to go on"
else
    # Resources are those in the script: what was given to qsub on its command line is not known here.
    qsub -v "INPUT=$INPUT,PFDHPC_JOB=$((job + 1))${PFDHPC_VENV:+,PFDHPC_VENV=$PFDHPC_VENV}" "$SCRIPT"
fi
exit 3
