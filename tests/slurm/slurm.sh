#!/usr/bin/env bash
# A Slurm of one node on this machine, for the tests; needs root and Debian's slurm-wlm and munge.
#   eval "$(bash tests/slurm/slurm.sh start FOLDER)"   exports SLURM_CONF; FOLDER is new, with a short path
#   bash tests/slurm/slurm.sh stop FOLDER              ends its jobs and daemons
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
folder=${2:?folder}
export SLURM_CONF=$folder/slurm.conf
cpus=8 # more than there are: tests of order, not of speed

configure() {
    local host port
    host=$(hostname -s)
    port=$((20000 + RANDOM % 20000))
    cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=pmi2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=1
ReturnToService=2
MinJobAge=3600
FirstJobId=$((RANDOM * 1000 + 1))
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
}

start() {
    mkdir -m 755 "$folder"
    mkdir "$folder/state" "$folder/spool"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    configure
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >&2
    slurmctld -c >&2
    slurmd >&2
    for _ in $(seq 100); do
        [[ $(sinfo -h -o %T 2>/dev/null) == idle ]] && break
        sleep 0.2
    done
    if [[ $(sinfo -h -o %T) != idle ]]; then
        tail -n 20 "$folder"/*.log >&2
        return 1
    fi
    echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
    scancel --user=root --signal=KILL --full 2>/dev/null || true
    for name in slurmctld slurmd munged; do
        kill "$(cat "$folder/$name.pid" 2>/dev/null)" 2>/dev/null || true
    done
}

"$1"
