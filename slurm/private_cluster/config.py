"""The private cluster's configuration files as text. Starts nothing.

All paths are in one folder and all addresses on this machine.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

NODES = {
    "v100-1": "Gres=gpu:v100:4 Feature=v100,v100-16gb",
    "v100-2": "Gres=gpu:v100:4 Feature=v100,v100-32gb",
    "p100-1": "Gres=gpu:p100:4 Feature=p100,p100-12gb",
    "cpu-1": "",
}
PARTITIONS = ("v100", "p100", "cpu", "gpu", "urgent")
PORTS = ("slurmctld", "slurmdbd", "mariadbd", *NODES)

# A unix socket's path may have 107 characters; slurmstepd's is the longest.
LONGEST_SOCKET = "/spool/v100-1/v100-1_4294967295.4294967295"
FOLDER_LENGTH = 107 - len(LONGEST_SOCKET)


def refuse_path(folder: Path) -> str | None:
    """Return why a cluster cannot be in this folder, as a sentence; None if it can."""
    if not re.fullmatch(r"[A-Za-z0-9/._+@~-]+", str(folder)):
        return f"{folder}: Slurm's files cannot name this folder; use letters, digits and . _ + @ ~ - in the whole path"
    if len(str(folder)) > FOLDER_LENGTH:
        return (
            f"{folder}: {len(str(folder))} characters are too long for the unix sockets in it; the whole path may have "
            f"{FOLDER_LENGTH}"
        )
    return None


def slurm_conf(folder: Path, ports: Mapping[str, int], *, accounting: bool, extra: Sequence[str] = ()) -> str:
    """Format slurm.conf. Lines of extra replace those with the same key; NodeName and PartitionName lines are added."""
    lines = f"""
ClusterName=home
SlurmctldHost=localhost
SlurmctldPort={ports["slurmctld"]}
SlurmdPort={ports["cpu-1"]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired, 120 s if nothing is said.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
{_accounting(folder, ports) if accounting else "AccountingStorageType=accounting_storage/none"}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters={_SCHEDULER}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
MaxArraySize=20001
MaxJobCount=50000
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Here, not in PreemptParameters: a key that a version does not know is fatal to every client.
SlurmctldParameters=preempt_send_user_signal
PriorityType=priority/basic
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
InactiveLimit=0
KillWait=3
BatchStartTimeout=10
JobRequeue=1
# Nodes of 16 processors, however few this machine has.
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=16 RealMemory=64000 State=UNKNOWN
{_nodes(ports)}
PartitionName=DEFAULT State=UP MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=500
PartitionName=v100 Nodes=v100-[1-2] PriorityTier=1 GraceTime=10
PartitionName=p100 Nodes=p100-1 PriorityTier=1 GraceTime=10
PartitionName=cpu Nodes=cpu-1 PriorityTier=1 Default=YES
PartitionName=gpu Nodes=v100-[1-2],p100-1 PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=ALL PriorityTier=10
""".strip().splitlines()
    replaced = {_key(line) for line in extra} - {"nodename", "partitionname"}
    return "\n".join([*(line for line in lines if _key(line) not in replaced), *extra]) + "\n"


def gres_conf(folder: Path) -> str:
    """Format gres.conf. Slurm sets CUDA_VISIBLE_DEVICES only if the files are character devices."""
    return (
        f"NodeName=v100-[1-2] Name=gpu Type=v100 File={folder}/gpu/nvidia[0-3]\n"
        f"NodeName=p100-1 Name=gpu Type=p100 File={folder}/gpu/nvidia[0-3]\n"
    )


def slurmdbd_conf(folder: Path, ports: Mapping[str, int], password: str) -> str:
    """Format slurmdbd.conf, which slurmdbd accepts only with mode 600."""
    return f"""
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
DbdHost=localhost
DbdPort={ports["slurmdbd"]}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports["mariadbd"]}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
CommitDelay=1
""".lstrip()


def database_sql(password: str) -> str:
    """Return the SQL that creates slurmdbd's database and user; it may be repeated."""
    return (
        "CREATE DATABASE IF NOT EXISTS slurm_acct_db;"
        f"CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY '{password}';"
        "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';"
    )


_SCHEDULER = ",".join(
    (
        "sched_interval=1",
        "bf_interval=2",
        "sched_min_interval=0",
        "batch_sched_delay=0",
        "default_queue_depth=1000",
        "requeue_setup_env_fail",
    )
)


def _accounting(folder: Path, ports: Mapping[str, int]) -> str:
    # Without AccountingStoragePass sacctmgr tries the system's munge.
    return f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports["slurmdbd"]}
AccountingStoragePass={folder}/run/munge.sock
AccountingStorageTRES=gres/gpu,gres/gpu:v100,gres/gpu:p100"""


def _nodes(ports: Mapping[str, int]) -> str:
    return "\n".join(
        f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[node]} {hardware}".rstrip()
        for node, hardware in NODES.items()
    )


def _key(line: str) -> str:
    return line.partition("=")[0].strip().lower()
