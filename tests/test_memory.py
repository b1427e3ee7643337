"""Memory that was freed is there at once when it is asked for again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from trainer.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import torch
def work():
    pieces = [torch.ones(size << 18) for size in (16, 40, 64)]  # MiB
    return sum(float(piece[-1]) for piece in pieces)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert sum(work() for _ in range(5)) == 15
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_what_a_step_has_freed_the_next_one_finds_again() -> None:
    """Counted in page faults; without it every step has them anew."""
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True, timeout=60).stdout
        )
        for mode in ("keep", "let go")
    }
    assert faults["keep"] < faults["let go"] / 10, faults
