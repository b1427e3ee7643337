"""Runs that are killed and restarted, and what must hold for their folders at every moment.

Starts real `python -m trainer` processes, each in its own session, so that none outlives its test.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from conftest import LONG_S, TRAINING, read
from networks import REFERENCE

from trainer.records.attempt import AttemptRecord
from trainer.records.checkpoint_file import inspect, list_checkpoints
from trainer.records.files import UNFINISHED, read_json
from trainer.records.result import Result
from trainer.records.run import CancelRequest, Commitment, RunFolder
from trainer.records.status import ErrorRecord, Progress

SCHEMAS = {
    "run.json": Commitment,
    "progress.json": Progress,
    "error.json": ErrorRecord,
    "result.json": Result,
    "cancel.json": CancelRequest,
}
COMPARED = ("run", "training", "training_hash", "data", "parameters", "history", "best")


def arguments(data: Path, architecture: str = REFERENCE, epochs: int = 6, *more: object) -> tuple[object, ...]:
    """Return the trainer's arguments except --output: 20 images, one step of 4 × 4 per epoch."""
    run = ("--architecture", architecture, "--dataset", "cifar10", "--ratio", 0.25, "--seed", 42, "--data", data)
    return (*run, "--epochs", epochs, "--batch-size", 4, "--lr-milestones", 3, "--threads", 1, *more)


class Trainers:
    """The trainers of one test; those left at its end are killed, stopped ones and their tracers too."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, output: Path, call: tuple[object, ...], *, through: tuple[object, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start `python -m trainer` on a run's folder; through: a program that starts it, such as strace."""
        words = (*through, sys.executable, "-m", "trainer", *call, "--output", output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with _said(output).open("a") as said:
            process = subprocess.Popen(
                [str(word) for word in words],
                cwd=output.parent,
                env=TRAINING,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                text=True,
            )
        self.started.append(process)
        return process

    def finish(self, output: Path, call: tuple[object, ...], *, through: tuple[object, ...] = ()) -> None:
        """Run a trainer to its end, which must be a success."""
        code = self.start(output, call, through=through).wait(LONG_S)
        assert code == 0, f"exit {code}\n{_said(output).read_text()[-3000:]}"

    def uninterrupted(self, output: Path, call: tuple[object, ...]) -> str:
        """Train a run without faults and return the outcome that every other way must reproduce."""
        self.finish(output, call)
        return outcome(output)

    def __enter__(self) -> "Trainers":
        return self

    def __exit__(self, *reason: object) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _said(output: Path) -> Path:
    return output.with_name(f"{output.name}.said")


def outcome(output: Path) -> str:
    """Return a result's training outcome without times, for comparison byte by byte."""
    result = read(output / "result.json")
    del result["history"]["epoch_seconds"]
    return json.dumps({name: result[name] for name in COMPARED})


def unfinished(output: Path) -> list[Path]:
    """List the temporary files of unfinished writes."""
    return sorted(output.rglob(f"*{UNFINISHED}"))


def whole_epochs(output: Path) -> int:
    """Check every complete file against its schema or checksum; returns the epochs of the newest checkpoint."""
    for path in output.rglob("*.json"):
        schema = AttemptRecord if path.parent.name == "attempts" else SCHEMAS[path.name]
        read_json(path, schema)
    checkpoints = list_checkpoints(output / "checkpoints")
    return max((inspect(path).history.epochs for path in checkpoints), default=0)


def hold_to_the_end(output: Path, reference: str, *killed: str) -> list[Any]:
    """Check the folder of a finished run and return its attempts.

    killed: the outcomes of the attempts before the last.
    """
    whole_epochs(output)
    assert outcome(output) == reference
    attempts: list[Any] = read(output / "result.json")["attempts"]
    assert [attempt["number"] for attempt in attempts] == list(range(1, len(attempts) + 1))
    outcomes = [attempt["outcome"] for attempt in attempts]
    assert outcomes == [*killed, "done"], outcomes
    assert len(list((output / "attempts").glob("*.json"))) == len(attempts)
    assert not (output / "error.json").exists()
    left = [*list_checkpoints(output / "checkpoints"), *unfinished(output)]
    assert left == [], left
    return attempts


class KilledRun:
    """A run that is killed repeatedly, and what its files must say after each kill."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = RunFolder(output)
        self.epochs = 0  # of the newest complete checkpoint, where the next attempt must start
        self.attempts = 0
        self.lost = 0  # the most completed epochs that a kill lost

    def look(self) -> str:
        """Check the folder after a kill, and tell from its files what the kill hit."""
        before, self.epochs = self.epochs, whole_epochs(self.output)
        begun = self._claims()
        progress: Any = read(self.folder.progress)
        shown = progress is not None and progress["attempt"] == self.attempts
        if begun and shown:
            assert progress["start_epoch"] == before, "did not resume from the newest complete checkpoint"
        if self.folder.result.exists():
            return "after the result"
        if shown:
            self.lost = max(self.lost, progress["epoch"] - self.epochs)
        if any(not path.name.startswith(".reserve.") for path in unfinished(self.output)):
            return "inside a write"
        if not begun:
            return "before the claim"
        return "in training" if shown else "in set-up"

    def end(self, reference: str) -> None:
        """Check the folder after the end, and remove it."""
        begun = self._claims()
        attempts = hold_to_the_end(self.output, reference, *["interrupted"] * (self.attempts - 1))
        assert not begun or attempts[-1]["start_epoch"] == self.epochs
        shutil.rmtree(self.output)

    def _claims(self) -> bool:
        """Tell whether there is a new attempt; a process makes at most one."""
        before, self.attempts = self.attempts, max(self.folder.attempt_numbers(), default=0)
        assert self.attempts - before in (0, 1)
        return self.attempts > before


class Trace:
    """Traces with strace the system calls by which a trainer changes files.

    Each call is delayed at its end by delay_s: long enough to kill the trainer right after it. strace's own injection
    of SIGKILL takes effect before the call, counts each thread separately, and does nothing with --seccomp-bpf, without
    which torch's imports take four times as long (strace 6.1).
    """

    CALLS = "write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat"

    def __init__(self, strace: str, lines: Path, *, delay_s: float = 0, only: Path | None = None) -> None:
        lines.parent.mkdir(parents=True, exist_ok=True)
        self.lines = lines
        held_up = ("-e", f"inject={self.CALLS}:delay_exit={int(delay_s * 1e6)}") if delay_s else ()
        matched = ("-P", only) if only else ()
        # -D: the trainer, not strace, is the child. -ff: a file per thread, in which no call is split.
        how = ("-D", "-ff", "-qq", "-y", "-s", 0, "--seccomp-bpf", "-o", lines)
        self.through = (strace, *how, *matched, "-e", f"trace={self.CALLS}", *held_up)

    def calls(self, output: Path) -> int:
        """Count the completed calls on a run's folder, except on its logs."""
        concerns = re.compile(re.escape(str(output)) + r"(?!/logs/)[/>\"].*\) += -?\d")
        files = self.lines.parent.glob(f"{self.lines.name}.*")
        return sum(bool(concerns.search(line)) for path in files for line in path.read_text().splitlines())
