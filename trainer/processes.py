"""Which process this is, and whether another one still lives. psutil answers alike on Linux and macOS."""

import os
import socket

import psutil

from trainer.records import Process

CLOCK_STEP_S = 2.0  # the kernel's start times move by as much when the clock is set


def this_process() -> Process:
    """Describe the calling process."""
    return describe(os.getpid())


def describe(pid: int) -> Process:
    """Describe a living process of this host. Raises psutil.NoSuchProcess."""
    return Process(host=socket.gethostname(), pid=pid, started=psutil.Process(pid).create_time())


def is_alive(process: Process) -> bool | None:
    """Tell whether a process still runs; None when it belongs to another host, where this one cannot look."""
    if process.host != socket.gethostname():
        return None
    try:
        found = psutil.Process(process.pid)
        if found.status() == psutil.STATUS_ZOMBIE:  # dead, and its parent has not taken notice
            return False
        return abs(found.create_time() - process.started) <= CLOCK_STEP_S
    except psutil.NoSuchProcess:
        return False
