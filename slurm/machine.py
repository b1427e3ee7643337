"""What this machine has for local workers: cores, memory, GPUs."""

import itertools
import os
import re
import shutil
import subprocess

import psutil

MEMORY_PER_WORKER = 3 * 2**30  # a step of the ViT takes 2 GiB, TinyImageNet whole another 1.2


def default_workers() -> int:
    """Choose how many workers this machine takes: one a GPU, otherwise one a core as far as its memory reaches.

    The same whatever there is to do: it decides the threads of a worker, and with them the last bits of a result.
    """
    return len(gpus_here()) or min(cores(), max(1, psutil.virtual_memory().total // MEMORY_PER_WORKER))


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus_here() -> list[str]:
    """Name the GPUs this process may use as CUDA_VISIBLE_DEVICES does: by index, UUID or MIG name.

    Those that the user or the scheduler chose, otherwise all that the driver lists. Without torch's second of imports.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    listed = _listed()
    if chosen is None or not listed:
        return listed
    names = [name.strip() for name in chosen.split(",")]
    return list(itertools.takewhile(_may_name_one, names))  # CUDA, too, stops at the first that is none


def _may_name_one(name: str) -> bool:
    return name.isdigit() or name.startswith(("GPU-", "MIG-"))


def _listed() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: list[str] = []
    for line in answer.stdout.splitlines():
        whole = re.match(r"GPU (\d+): ", line)
        part = re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)
        if whole:
            found.append(whole[1])
        elif part:  # of the GPU above, which then is no device by itself
            if found and found[-1].isdigit():
                found.pop()
            found.append(part[1])
    return found
