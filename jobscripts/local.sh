#!/usr/bin/env bash
# Run on this machine:  bash jobscripts/local.sh [input.toml] [-n RANKS]
# Exit codes: 0 complete, 3 stopped cleanly (the same command goes on), 2 bad input, 1 a bug.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=jobscripts/setup_env.sh
source "$root/jobscripts/setup_env.sh" || exit 1

INPUT=$root/inputs/quickstart/input.toml
ranks=4
while (($#)); do
    case $1 in
        -n) ranks=${2:?-n needs a number of ranks}; shift 2 ;;
        -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) echo "local.sh: unknown option $1" >&2; exit 2 ;;
        *) INPUT=$1; shift ;;
    esac
done

# In a process group of its own (set -m), so that Ctrl-C, like a kill of this script, only asks the run
# to stop cleanly.
set -m
LAUNCH=(mpiexec -n "$ranks")
# shellcheck source=jobscripts/restart.sh
source "$root/jobscripts/restart.sh"
run_job
[[ $code -eq 3 ]] && echo "local.sh: incomplete but clean; run the same command again to go on" >&2
exit "$code"
