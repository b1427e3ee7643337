"""Why torch cannot use a GPU that is here: its driver, its CUDA, or who hides it. In words that say what to do."""

import os
import re
from pathlib import Path

import torch

DRIVER = Path("/proc/driver/nvidia/version")  # there while NVIDIA's kernel module is loaded
HIDDEN = ("", "-1", "NoDevFiles")  # of CUDA_VISIBLE_DEVICES; the last is what some Slurms write
# The oldest driver of each CUDA, by minor-version compatibility (CUDA release notes, table 2).
OLDEST = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}


def is_loaded() -> bool:
    """Whether NVIDIA's driver is loaded here, so that there should be a GPU."""
    return DRIVER.exists()


def is_given() -> bool:
    """Whether Slurm or the user gave this process GPUs by name."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").strip() not in HIDDEN


def problem() -> str | None:
    """Say why torch cannot begin to use a GPU; None where it can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} was built without CUDA; install one of the builds with it"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return explain(str(error))
    return None


def explain(words: str) -> str:
    """Say in a sentence what torch's words mean, where its CUDA did not start."""
    first = words.strip().partition("\n")[0]
    old = re.search(r"driver on your system is too old \(found version (\d+)\)", first)
    if not old:
        return first
    version = int(old[1])
    oldest = OLDEST.get(int((torch.version.cuda or "0").partition(".")[0]))
    needed = f"driver {oldest} or later" if oldest else "a newer driver"
    return (
        f"the NVIDIA driver here{_version()} knows CUDA {version // 1000}.{version % 1000 // 10}, and torch "
        f"{torch.__version__} wants {torch.version.cuda}: have {needed} installed, or use another node"
    )


def _version() -> str:
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", DRIVER.read_text(errors="replace"))
    except OSError:
        found = None
    return f", {found[1]}," if found else ""
