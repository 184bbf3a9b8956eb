# shellcheck shell=bash
# Sourced by the Slurm scripts, which set LAUNCH (array), INPUT and MAX_JOBS: a chain of jobs under Slurm.

system=slurm stopped=cancelled

# The script that runs is a copy in the spool; Slurm knows the original, and what this job was given.
resubmit() {
    local facts
    facts=$(scontrol show job -o "$SLURM_JOB_ID" | head -n 1) # one line for each job of an array or a group
    fact() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" <<<"$facts"; }
    PFDHPC_JOB=$((job + 1)) sbatch --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_NTASKS" \
        --ntasks-per-node="${SLURM_NTASKS_PER_NODE:-$SLURM_NTASKS}" \
        ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"} ${SLURM_JOB_QOS:+--qos="$SLURM_JOB_QOS"} \
        --partition="$SLURM_JOB_PARTITION" --time="$(fact TimeLimit)" "$(fact Command)" "$INPUT"
}

# shellcheck source=jobscripts/chain.sh
source "$(dirname "${BASH_SOURCE[0]}")/chain.sh"
