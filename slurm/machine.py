"""What this machine has for local workers: cores, memory, GPUs."""

import os
import shutil
import subprocess

import psutil

MEMORY_PER_WORKER = 3 * 2**30  # a step of the ViT takes 2 GiB, TinyImageNet whole another 1.2


def default_workers() -> int:
    """Choose how many workers this machine takes: one a GPU, otherwise one a core as far as its memory reaches.

    The same whatever there is to do: it decides the threads of a worker, and with them the last bits of a result.
    """
    return gpu_count() or min(cores(), max(1, psutil.virtual_memory().total // MEMORY_PER_WORKER))


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count() -> int:
    """Count this machine's GPUs as the driver lists them, without torch's second of imports."""
    if not shutil.which("nvidia-smi"):
        return 0
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())
