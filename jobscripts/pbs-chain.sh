# shellcheck shell=bash
# Sourced by the PBS scripts, which set LAUNCH (array), INPUT, SCRIPT (the file to submit again) and MAX_JOBS: a chain of
# jobs under PBS.

system=pbs stopped="deleted, or at the end of its wall-time"

# Resources are those in the script: what was given to qsub on its command line is not known here.
resubmit() {
    qsub -v "INPUT=$INPUT,PFDHPC_JOB=$((job + 1))${PFDHPC_VENV:+,PFDHPC_VENV=$PFDHPC_VENV}" "$SCRIPT"
}

# shellcheck source=jobscripts/chain.sh
source "$(dirname "${BASH_SOURCE[0]}")/chain.sh"
