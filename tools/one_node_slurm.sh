#!/usr/bin/env bash
# A SLURM of one node on this machine, without systemd: `start` prints the line that lets `sbatch` find it, `stop` ends it.
#
#   eval "$(tools/one_node_slurm.sh start)" && sbatch --wrap hostname && squeue
#
# Needs root, and Debian's packages, which `install` fetches: slurmctld slurmd slurm-client munge. A second one beside it
# takes a folder and two ports of its own, MEDSAM_SLURM and MEDSAM_SLURM_PORT.
set -euo pipefail
folder=${MEDSAM_SLURM:-${TMPDIR:-/tmp}/medsam-slurm}
port=${MEDSAM_SLURM_PORT:-16817}
configuration=$folder/slurm.conf

fetch() {
    apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends slurmctld slurmd slurm-client munge >&2
}

configure() {
    local memory
    memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
    mkdir -p "$folder"/{state,spool,log}
    cat >"$configuration" <<END
ClusterName=medsam
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

running() { [ -f "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

start() {
    command -v slurmctld slurmd sbatch munged >/dev/null || { echo "SLURM is missing: run $0 install" >&2; exit 1; }
    configure
    export SLURM_CONF=$configuration
    if ! munge -n </dev/null >/dev/null 2>&1; then
        mkdir -p /run/munge && chown munge: /run/munge && chmod 755 /run/munge
        runuser -u munge -- munged >&2
    fi
    running "$folder/slurmctld.pid" || slurmctld >&2
    running "$folder/slurmd.pid" || slurmd >&2
    for _ in $(seq 100); do
        case $(sinfo -h -o %T 2>/dev/null) in idle* | mixed* | allocated*) echo "export SLURM_CONF=$configuration"; exit 0 ;; esac
        sleep 0.3
    done
    echo "SLURM did not come up; its logs are in $folder/log" >&2
    exit 1
}

stop() {
    export SLURM_CONF=$configuration
    if running "$folder/slurmctld.pid"; then
        scancel --user="$(id -un)" || true
        for _ in $(seq 100); do [ -n "$(squeue -h)" ] || break; sleep 0.2; done  # its steps outlive a slurmd
    fi
    for name in slurmd slurmctld; do
        if running "$folder/$name.pid"; then kill "$(cat "$folder/$name.pid")"; fi
    done
    for name in slurmd slurmctld; do
        for _ in $(seq 50); do running "$folder/$name.pid" || break; sleep 0.2; done
    done
    rm -rf "$folder"
}

case ${1:-} in
    install) fetch ;;
    start | stop) "$1" ;;
    *) echo "usage: $0 install | start | stop" >&2; exit 2 ;;
esac
