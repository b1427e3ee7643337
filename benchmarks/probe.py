"""Describe the machine in a process of its own, so that the one that measures others needs no torch and no GPU.

`benchmarks.launch` calls `python -m benchmarks.probe DEVICE ANSWER`.
"""

import os
import sys
from pathlib import Path

import psutil

from benchmarks.records import Machine
from trainer.loop.device import DeviceError, choose_device, gpu_names, resolve_precision
from trainer.loop.environment import cpu_name
from trainer.records.code import git_state
from trainer.records.files import write_json


def look(device_name: str) -> Machine:
    """Describe the machine. Raises DeviceError."""
    device = choose_device(device_name)
    commit, dirty = git_state(Path(__file__).parent)
    return Machine(
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        gpu=next(iter(gpu_names(device)), None),
        auto=resolve_precision("auto", device),
        commit=commit,
        dirty=dirty,
    )


if __name__ == "__main__":
    try:
        write_json(Path(sys.argv[2]), look(sys.argv[1]))
    except DeviceError as error:
        sys.exit(str(error))
