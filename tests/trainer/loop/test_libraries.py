"""What the libraries below torch are told reaches them."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from trainer.loop.libraries import settle_libraries
if sys.argv[1] == "keep":
    settle_libraries(own_cores=True)
import torch
def work():
    pieces = [torch.ones(size << 18) for size in (16, 40, 64)]  # MiB
    return sum(float(piece[-1]) for piece in pieces)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert sum(work() for _ in range(5)) == 15
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

DECIDING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "SLURM_JOB_ID")


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "30000"),
        ({"SLURM_JOB_ID": "5"}, ""),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ""),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
    ],
)
def test_a_trainer_s_threads_wait_as_the_user_says_or_as_measured(given: dict[str, str], spins: str) -> None:
    """It is in the environment before torch is imported, which reads it once. A job's cores are its own."""
    code = (
        "import os, sys\n"
        "from trainer.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT', ''), 'torch' in sys.modules)"
    )
    bare = {name: value for name, value in os.environ.items() if name not in DECIDING}
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=bare | given, timeout=60
    )
    assert ran.stdout.splitlines()[-1] == f"{spins} False"
