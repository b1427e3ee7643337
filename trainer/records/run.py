"""What a run is, what its folder is for and holds, and what a job is told to do with it."""

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.records.base import Record, Versioned
from trainer.records.code import Code
from trainer.records.recipe import Recipe

KeepCheckpoints = Literal["none", "final"]


class Run(Record):
    """One cell of the grid."""

    id: str
    architecture: str
    dataset: str
    ratio: float
    seed: int


class RunSpec(Record):
    """A run and how it trains: all that a trainer needs to know besides folders."""

    run: Run
    training: Recipe


class Commitment(RunSpec, Versioned):
    """run.json: what the run's folder is for, written by its first attempt. Others are refused with what differs."""

    data_fingerprint: str


class Other(str, Enum):
    """What tells one piece of work from another."""

    RUN = "run"
    RECIPE = "recipe"
    DATASET = "dataset"


def other_work(found: Commitment, wanted: RunSpec, fingerprint: str | None) -> Other | None:
    """What tells the work that was found from the work that is wanted, the first such thing; None if nothing does.

    fingerprint: of the data wanted; None where it is not known or does not matter, which differs from nothing.
    """
    if found.run != wanted.run:
        return Other.RUN
    if found.training != wanted.training:
        return Other.RECIPE
    if fingerprint is not None and found.data_fingerprint != fingerprint:
        return Other.DATASET
    return None


class Options(Record):
    """How a run is executed; none of it changes what is computed beyond rounding.

    keep_checkpoints: what stays of a run's checkpoints when it is done, the state after its last epoch or nothing.
    processes: how many share a run's replicas, each with a GPU of its own where it computes on GPUs. stall_s: after as
    long without a sign a trainer is ended; 0 for never, None for what its epochs tell.
    """

    device: str = "auto"
    processes: int = 1
    threads: int = 0
    checkpoint_interval_s: float = 30.0
    keep_checkpoints: KeepCheckpoints = "none"
    stall_s: float | None = None


class Bundle(Versioned):
    """The runs of a submission's jobs, handed to `python -m trainer --bundle FILE --task N`.

    tasks: the runs of each job, by the index in its array. runs_folder holds a folder a run. workers: how many
    processes share a job's runs; each takes what no other has taken. mps: they share its GPU through NVIDIA's service.
    rivals: the names of arrays in other pools that have the same tasks; whichever starts a task first does it.
    code: what the jobs run; None in those of earlier versions, which ran what was installed.
    """

    submission: str
    pool: str
    data: Path
    runs_folder: Path
    options: Options
    workers: int = 1
    mps: bool = False
    rivals: list[str] = []
    code: Code | None = None
    tasks: list[list[RunSpec]]


class CancelRequest(Versioned):
    """cancel.json: the wish that a run stop and stay stopped. The trainer looks for it; a new submission removes it."""

    run_id: str
    requested: datetime


class RunFolder(NamedTuple):
    """Where the files of one run lie."""

    path: Path

    @property
    def commitment(self) -> Path:
        return self.path / "run.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def error(self) -> Path:
        return self.path / "error.json"

    @property
    def cancel(self) -> Path:
        return self.path / "cancel.json"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:04d}.json"

    def log(self, number: int) -> Path:
        return self.logs / f"attempt-{number:04d}.log"

    def attempt_numbers(self) -> list[int]:
        """List the attempts there are, oldest first."""
        if not self.attempts.is_dir():
            return []
        return sorted(int(path.stem) for path in self.attempts.glob("*.json") if path.stem.isdecimal())
