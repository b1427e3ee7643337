"""Inspect runs on Slurm and their processes, for the tests of failures."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Command, read, wait_for
from slurm_fixtures import LOOK_S, states

from trainer.records.run import RunFolder

ENDED = {"done", "failed", "interrupted", "cancelled"}
SHOWN = ("seed", "state", "cause", "message", "epoch", "attempt", "job", "node", "problem")


def run_id(seed: int) -> str:
    """Return the id of a seed's run in these tests' sweep files."""
    return f"small-cifar10-r1.0-s{seed}"


def folder_of(tmp_path: Path, seed: int, name: str = "study") -> RunFolder:
    return RunFolder(tmp_path / "runs" / name / "runs" / run_id(seed))


def trainer_of(folder: RunFolder) -> int | None:
    """Return the pid of a run's newest attempt, None if there is none."""
    numbers = folder.attempt_numbers()
    return read(folder.attempt(numbers[-1]))["process"]["pid"] if numbers else None


def has_checkpoint(folder: RunFolder) -> bool:
    """Tell whether a run has a complete checkpoint."""
    return any(folder.checkpoints.glob("epoch-*.safetensors"))


def wait_for_checkpoints(folders: Sequence[RunFolder]) -> None:
    """Wait until each run has a checkpoint."""
    wait_for(
        lambda: all(any(folder.checkpoints.glob("epoch-*.safetensors")) for folder in folders),
        "a checkpoint of every run",
    )


def hold_at_checkpoint(folders: Sequence[RunFolder]) -> None:
    """Stop each run's trainer once it has a checkpoint, so that it cannot finish."""
    left = list(folders)

    def all_held() -> bool:
        for folder in list(filter(has_checkpoint, left)):
            pid = trainer_of(folder)
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            left.remove(folder)
        return not left

    wait_for(all_held, "a checkpoint of every run")


def by_seed(command: Command, file: Path) -> dict[int, dict[str, Any]]:
    """Return every run's entry of `sweep status --json`, by seed."""
    return {run["seed"]: run for run in states(command, file).values()}


def wait_for_all(
    command: Command, file: Path, hold: Callable[[dict[int, dict[str, Any]]], bool], what: str, seconds: float = 90.0
) -> dict[int, dict[str, Any]]:
    """Wait until `hold` is true of the runs by seed, which are returned."""
    deadline = time.monotonic() + seconds
    while not hold(found := by_seed(command, file)):
        if time.monotonic() > deadline:
            summary = "\n".join(str({key: run[key] for key in SHOWN}) for run in found.values())
            pytest.fail(f"waited {seconds} s in vain for {what}:\n{summary}")
        time.sleep(LOOK_S)
    return found


def all_ended(found: dict[int, dict[str, Any]]) -> bool:
    """Tell whether all runs have ended."""
    return {run["state"] for run in found.values()} <= ENDED


class Frozen:
    """Keeps processes stopped until they are killed, despite SIGCONT, as if hanging on a silent file server."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = pids
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._hold)

    def __enter__(self) -> "Frozen":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    def _hold(self) -> None:
        while not self.over.wait(0.02):
            for pid in self.pids:
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGSTOP)


def with_parent(pid: int | None) -> list[int]:
    """Return the pids of a trainer and of the task that started it."""
    assert pid is not None
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return [pid, parent.pid]
