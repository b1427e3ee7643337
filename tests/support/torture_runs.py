"""Runs that are killed and begun again, and what must hold of their folders at every moment.

Starts real `python -m trainer` processes. Each has a session of its own, so that nothing of it outlives its test,
whatever it was started through.
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

from conftest import LONG_S, ONE_THREAD, read

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


def arguments(data: Path, architecture: str = "resnet18", epochs: int = 6, *more: object) -> tuple[object, ...]:
    """Give a call without its --output: 20 images, one step of 4 × 4 an epoch."""
    run = ("--architecture", architecture, "--dataset", "cifar10", "--ratio", 0.25, "--seed", 42, "--data", data)
    return (*run, "--epochs", epochs, "--batch-size", 4, "--lr-milestones", 3, "--threads", 1, *more)


class Trainers:
    """The trainers of one test; those still there at its end are killed, frozen ones and their tracers too."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, output: Path, call: tuple[object, ...], *, through: tuple[object, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start `python -m trainer` on a run's folder, through another program if that is said."""
        words = (*through, sys.executable, "-m", "trainer", *call, "--output", output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with _said(output).open("a") as said:
            process = subprocess.Popen(
                [str(word) for word in words],
                cwd=output.parent,
                env=ONE_THREAD,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                text=True,
            )
        self.started.append(process)
        return process

    def finish(self, output: Path, call: tuple[object, ...], *, through: tuple[object, ...] = ()) -> None:
        """Run a trainer to its end, which must be a good one."""
        code = self.start(output, call, through=through).wait(LONG_S)
        assert code == 0, f"exit {code}\n{_said(output).read_text()[-3000:]}"

    def uninterrupted(self, output: Path, call: tuple[object, ...]) -> str:
        """Train a run without a fault and give what every other way to its end must give as well."""
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
    """Give what a result says of the training, times left out, byte for byte."""
    result = read(output / "result.json")
    del result["history"]["epoch_seconds"]
    return json.dumps({name: result[name] for name in COMPARED})


def unfinished(output: Path) -> list[Path]:
    """List what was begun under another name and not finished."""
    return sorted(output.rglob(f"*{UNFINISHED}"))


def whole_epochs(output: Path) -> int:
    """Hold every file under a final name to its schema or its checksum; give the epochs of the newest checkpoint."""
    for path in output.rglob("*.json"):
        schema = AttemptRecord if path.parent.name == "attempts" else SCHEMAS[path.name]
        read_json(path, schema)
    checkpoints = list_checkpoints(output / "checkpoints")
    return max((inspect(path).history.epochs for path in checkpoints), default=0)


def hold_to_the_end(output: Path, reference: str, *killed: str) -> list[Any]:
    """Check a run's folder after the end it came to at last; give its attempts.

    killed: how the attempts before the last ended.
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
    """One run on its way through kills, and what its files must say because of them."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = RunFolder(output)
        self.epochs = 0  # of the newest whole checkpoint, where the next attempt must begin
        self.attempts = 0
        self.lost = 0  # epochs that were done and have to be done again, at most

    def look(self) -> str:
        """Check the folder after a kill, and tell by its files what the kill hit."""
        before, self.epochs = self.epochs, whole_epochs(self.output)
        begun = self._claims()
        progress: Any = read(self.folder.progress)
        shown = progress is not None and progress["attempt"] == self.attempts
        if begun and shown:
            assert progress["start_epoch"] == before, "did not go on from the newest whole checkpoint"
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
        """Check the folder after the end, and clear it away."""
        begun = self._claims()
        attempts = hold_to_the_end(self.output, reference, *["interrupted"] * (self.attempts - 1))
        assert not begun or attempts[-1]["start_epoch"] == self.epochs
        shutil.rmtree(self.output)

    def _claims(self) -> bool:
        """Tell whether there is an attempt that was not there before; a process makes one at most."""
        before, self.attempts = self.attempts, max(self.folder.attempt_numbers(), default=0)
        assert self.attempts - before in (0, 1)
        return self.attempts > before


class Trace:
    """The calls to the kernel by which a trainer, started through this, changes files; seen with strace.

    Each call is held up at its end for delay_s: long enough to kill the trainer right after it. strace's own
    injection of SIGKILL takes effect before the call instead, counts each thread by itself, and does nothing with
    --seccomp-bpf, without which torch's imports take four times as long (strace 6.1).
    """

    CALLS = "write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat"

    def __init__(self, strace: str, lines: Path, *, delay_s: float = 0, only: Path | None = None) -> None:
        lines.parent.mkdir(parents=True, exist_ok=True)
        self.lines = lines
        held_up = ("-e", f"inject={self.CALLS}:delay_exit={int(delay_s * 1e6)}") if delay_s else ()
        matched = ("-P", only) if only else ()
        # -D: the trainer, not strace, is the child. -ff: a file a thread, in which no call is torn in two.
        how = ("-D", "-ff", "-qq", "-y", "-s", 0, "--seccomp-bpf", "-o", lines)
        self.through = (strace, *how, *matched, "-e", f"trace={self.CALLS}", *held_up)

    def calls(self, output: Path) -> int:
        """Count the calls that have concerned a run's folder, its logs aside, and are through."""
        concerns = re.compile(re.escape(str(output)) + r"(?!/logs/)[/>\"].*\) += -?\d")
        files = self.lines.parent.glob(f"{self.lines.name}.*")
        return sum(bool(concerns.search(line)) for path in files for line in path.read_text().splitlines())
