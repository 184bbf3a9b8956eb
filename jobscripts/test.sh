#!/usr/bin/env bash
# Everything the tests check: style, one process, then MPI on 1, 2 and 4 ranks.
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

summary=()
failed=0
step() {
    local begin=$SECONDS result=passed
    printf '\n+ %s\n' "$*"
    "$@" </dev/null || { result="FAILED ($?)"; failed=1; }
    summary+=("$result, $((SECONDS - begin)) s: $*")
}

step ruff check .
step python -m pytest tests --ignore=tests/mpi "$@"
for ranks in 1 2 4; do
    # Through mpi4py a failure on one rank ends the job instead of leaving the others waiting.
    step mpiexec -n "$ranks" python -m mpi4py -m pytest -x -q -p no:cacheprovider tests/mpi
done

printf '\nSummary\n'
printf '  %s\n' "${summary[@]}"
exit "$failed"
