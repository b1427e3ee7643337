"""Which process this is, in which job, and whether another one still lives. psutil answers alike on Linux and macOS."""

import os
import socket
from collections.abc import Mapping

import psutil

from trainer.records.base import Record


class Process(Record):
    """A process on a host. started (seconds since 1970) tells it from a later one that was given the same pid."""

    host: str
    pid: int
    started: float


CLOCK_STEP_S = 2.0  # the kernel's start times move by as much when the clock is set


def this_process() -> Process:
    """Describe the calling process."""
    return describe(os.getpid())


def describe(pid: int) -> Process:
    """Describe a living process of this host. Raises psutil.NoSuchProcess."""
    return Process(host=socket.gethostname(), pid=pid, started=psutil.Process(pid).create_time())


def is_alive(process: Process) -> bool | None:
    """Whether a process still runs; None when it belongs to another host, where this one cannot look."""
    if process.host != socket.gethostname():
        return None
    try:
        found = psutil.Process(process.pid)
        if found.status() == psutil.STATUS_ZOMBIE:  # dead, and its parent has not taken notice
            return False
        return abs(found.create_time() - process.started) <= CLOCK_STEP_S
    except psutil.NoSuchProcess:
        return False


def job_name() -> str:
    """Name what runs this process: Slurm's job, or the process itself."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID") or f"pid-{os.getpid()}"


def restarts() -> int:
    """How often Slurm has started this job anew, after preemption or a node's failure."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def of_torchrun(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, size) of this process among those that torchrun started; (0, 1) when it was started otherwise."""
    if not all(name in environment for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return 0, 1
    return int(environment["RANK"]), int(environment["WORLD_SIZE"])


def node_name() -> str:
    """Name this machine as its scheduler does; several of Slurm's nodes may share one host."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
