#!/usr/bin/env bash
# Everything the tests check: style, one process, whole jobs, then MPI on 1, 2 and 4 ranks.
#   bash jobscripts/test.sh [arguments of the first pytest, e.g. -k store]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source=jobscripts/setup_env.sh
source jobscripts/setup_env.sh || exit 1

# The job scripts are tested under a real Slurm of one node; where it cannot be had those tests are skipped.
if [[ $(id -u) -eq 0 ]] && ! PATH=$PATH:/usr/sbin command -v slurmctld >/dev/null; then
    echo "test.sh: installing Slurm (apt-get install slurm-wlm munge)"
    { command -v apt-get && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y slurm-wlm munge; } \
        >/dev/null 2>&1 </dev/null || echo "test.sh: Slurm cannot be installed here: its tests are skipped"
fi
# Labels by a program of its own are tested with Quantum ESPRESSO, likewise.
if [[ $(id -u) -eq 0 ]] && ! command -v pw.x >/dev/null; then
    echo "test.sh: installing Quantum ESPRESSO (apt-get install quantum-espresso)"
    { command -v apt-get && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y quantum-espresso; } \
        >/dev/null 2>&1 </dev/null || echo "test.sh: Quantum ESPRESSO cannot be installed here: its tests are skipped"
fi
if [[ $(id -u) -eq 0 ]] && ! command -v cp2k >/dev/null; then
    echo "test.sh: installing CP2K (apt-get install cp2k)"
    { command -v apt-get && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y cp2k; } \
        >/dev/null 2>&1 </dev/null || echo "test.sh: CP2K cannot be installed here: its test is skipped"
fi

# Two tests run side by side: more threads only get in each other's way.
export OMP_NUM_THREADS=1

summary=()
failed=0
step() {
    local begin=$SECONDS result=passed
    printf '\n+ %s\n' "$*"
    "$@" </dev/null || { result="FAILED ($?)"; failed=1; }
    summary+=("$result, $((SECONDS - begin)) s: $*")
}

step ruff check .
# Two side by side, a file at a time; what is about time and Slurm's one node, one after another.
timed=(tests/e2e/test_walltime.py tests/slurm)
apart=(tests/mpi tests/e2e tests/faults "${timed[@]}")
step python -m pytest -n 2 --dist loadfile tests "${apart[@]/#/--ignore=}" "$@"
step python -m pytest -n 2 --dist loadfile tests/faults tests/e2e "${timed[@]/#/--ignore=}" --durations=10 "$@"
step python -m pytest "${timed[@]}" "$@"
for ranks in 1 2 4; do
    # Through mpi4py a failure on one rank ends the job instead of leaving the others waiting.
    step mpiexec -n "$ranks" python -m mpi4py -m pytest -x -q -p no:cacheprovider tests/mpi
done

printf '\nSummary\n'
printf '  %s\n' "${summary[@]}"
exit "$failed"
