"""Which GPUs this machine's workers get: what the user or the scheduler chose comes first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.local import share_of_gpus
from slurm.machine import cores, default_workers, gpus_here

TWO = "GPU 0: Tesla V100 (UUID: GPU-aaaa)\nGPU 1: Tesla V100 (UUID: GPU-bbbb)\n"
PARTS = """\
GPU 0: NVIDIA A100 (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
GPU 1: NVIDIA A100 (UUID: GPU-bbbb)
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have nvidia-smi list these GPUs."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def lists(words: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '%s' '{words}'\n")
        program.chmod(0o755)

    return lists


@pytest.mark.parametrize(
    ("listed", "chosen", "found"),
    [
        (TWO, None, ["0", "1"]),
        (TWO, "1", ["1"]),
        (TWO, "1, 0", ["1", "0"]),
        (TWO, "GPU-bbbb", ["GPU-bbbb"]),
        (TWO, "", []),
        (TWO, "-1", []),
        (TWO, "1,-1,0", ["1"]),
        (TWO, "NoDevFiles", []),
        (PARTS, None, ["MIG-1111", "MIG-2222", "1"]),
        (PARTS, "MIG-2222", ["MIG-2222"]),
        ("No devices found.", "0", []),
    ],
)
def test_a_choice_of_gpus_counts(
    driver: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    listed: str,
    chosen: str | None,
    found: list[str],
) -> None:
    """As CUDA reads CUDA_VISIBLE_DEVICES: by index, UUID or MIG name, up to the first that is none of them."""
    driver(listed)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus_here() == found
    assert default_workers() == len(found) or (not found and 1 <= default_workers() <= cores())


@pytest.mark.parametrize(
    ("number", "per_run", "gpus", "visible"),
    [
        (1, 1, "01", "0"),
        (3, 1, "01", "0"),
        (2, 1, "52", "2"),
        (1, 4, "01234567", "0,1,2,3"),
        (2, 4, "01234567", "4,5,6,7"),
        (3, 4, "01234567", "0,1,2,3"),
        (1, 4, "01", "0,1"),
        (2, 1, ["GPU-aaaa", "MIG-1111"], "MIG-1111"),
    ],
)
def test_workers_take_turns_at_the_gpus(number: int, per_run: int, gpus: list[str], visible: str) -> None:
    """Each sees as many as its runs use; where there are too few it sees all, and the run says so."""
    assert share_of_gpus(number, per_run, gpus) == visible
