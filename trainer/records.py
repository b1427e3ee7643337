"""The records a run leaves behind, as schemas: result, progress, error, attempt, cancel request.

Everyone who writes or reads one of these files uses these classes. Standard library and pydantic only. Times are UTC;
metric names are the keys of `History`.
"""

from collections.abc import Sequence
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.recipe import Recipe

SCHEMA_VERSION: Literal[1] = 1

Metric = Literal["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
METRICS: tuple[Metric, ...] = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")

Outcome = Literal["done", "failed", "interrupted", "cancelled"]
KeepCheckpoints = Literal["none", "final"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Cause(str, Enum):
    """Why a run is failed or interrupted."""

    CUDA_OOM = "cuda_oom"
    GPU_FAULT = "gpu_fault"
    HOST_OOM = "host_oom"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    LAUNCH_FAILED = "launch_failed"
    EXCEPTION = "exception"
    DIVERGED = "diverged"
    KILLED = "killed"
    LOST = "lost"


class ExitCode(int, Enum):
    """What `python -m trainer` answers; the numbers are sysexits.h's where it has one."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STOOD_BACK = 69  # EX_UNAVAILABLE: another process owns this run
    GPU_FAULT = 74  # EX_IOERR: the GPU serves this process no longer; a fresh one can go on
    INTERRUPTED = 75  # EX_TEMPFAIL: stopped, will continue when called again


def now() -> datetime:
    """Give the present moment, UTC, to the millisecond."""
    moment = datetime.now(timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Record(BaseModel):
    """What every file and every part of one has in common: known keys only, never changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Versioned(Record):
    """A whole file."""

    schema_version: Literal[1] = SCHEMA_VERSION


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


class History(Record):
    """One number an epoch, epoch 0 first; all lists are equally long."""

    train_loss: list[Finite] = []
    train_accuracy: list[Finite] = []
    val_loss: list[Finite] = []
    val_accuracy: list[Finite] = []
    learning_rate: list[Finite] = []
    epoch_seconds: list[Finite] = []

    @model_validator(mode="after")
    def _equally_long(self) -> "History":
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"history holds unequal numbers of epochs: {lengths}")
        return self

    @property
    def epochs(self) -> int:
        return len(self.train_loss)


class BestValue(Record):
    """The best value of one metric and the first epoch that reached it."""

    value: Finite
    epoch: int


class Best(Record):
    """The best value of each metric: highest accuracy, lowest loss."""

    train_loss: BestValue
    train_accuracy: BestValue
    val_loss: BestValue
    val_accuracy: BestValue

    @classmethod
    def of(cls, history: History) -> "Best":
        """Find the best of each metric; the earliest epoch on a tie. The history must hold an epoch."""

        def best(metric: Metric) -> BestValue:
            values: list[float] = getattr(history, metric)
            value = max(values) if metric.endswith("accuracy") else min(values)
            return BestValue(value=value, epoch=values.index(value))

        return cls(**{metric: best(metric) for metric in METRICS})


class DataRecord(Record):
    """What a run was trained on."""

    fingerprint: str
    train_samples: int
    val_samples: int
    classes: int


class Timing(Record):
    """Seconds, summed over attempts. Training and evaluation count only work that is in the history."""

    train_seconds: Finite
    evaluation_seconds: Finite
    total_seconds: Finite


class Stretch(Record):
    """The epochs from this one on, and what computed them: what differs in any of it may round otherwise.

    device: the GPU's name, or the processor's.
    """

    epoch: int
    device: str
    precision: str
    threads: int
    torch: str

    def like(self, other: "Stretch") -> bool:
        """Tell whether both compute the same bits, as far as can be known."""
        return self.model_copy(update={"epoch": other.epoch}) == other

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}, {self.threads} threads, torch {self.torch}"


class Hardware(Record):
    """Where the last attempt ran. precision is what was used, also when the recipe says auto.

    stretches: what computed which epochs; more than one where the run went on on something else.
    """

    host: str
    cpu: str
    gpus: list[str]
    pool: str
    device: str
    precision: str
    stretches: list[Stretch] = []

    @property
    def precisions(self) -> list[str]:
        """List the number formats the epochs were computed in, in their order."""
        return list(dict.fromkeys([*(stretch.precision for stretch in self.stretches), self.precision]))


class Environment(Record):
    """What the last attempt ran on."""

    python: str
    torch: str
    torchvision: str
    cuda: str | None
    git_commit: str | None
    git_dirty: bool | None
    slurm_job_id: str | None


class Process(Record):
    """A process on a host. started (seconds since 1970) tells it from a later one that was given the same pid."""

    host: str
    pid: int
    started: float


class Attempt(Record):
    """One execution of a run, as result.json lists it. Epochs count completed ones."""

    number: int
    started: datetime
    ended: datetime | None = None
    start_epoch: int = 0
    end_epoch: int = 0
    host: str
    job: str
    outcome: Outcome | None = None


class AttemptRecord(Versioned, Attempt):
    """attempts/N.json: the history of one attempt and, while it has no outcome, its claim on the run's folder.

    Attempt N+1 exists only if someone took the run over: the highest number owns the folder. restarts: how often Slurm
    had started the job anew by then.
    """

    run_id: str
    submission: str | None
    restarts: int = 0
    process: Process
    log: str
    cause: Cause | None = None
    message: str | None = None

    def summary(self) -> Attempt:
        """Give the part that result.json keeps."""
        return Attempt(**{name: getattr(self, name) for name in Attempt.model_fields})


class Commitment(Versioned):
    """run.json: what the run's folder is for, written by its first attempt. Others are refused with what differs."""

    run: Run
    training: Recipe
    data_fingerprint: str


class Difference(NamedTuple):
    """A field in which two records differ, and what each has in it."""

    name: str
    mine: object
    theirs: object


def difference(mine: Sequence[BaseModel], theirs: Sequence[BaseModel]) -> Difference | None:
    """Find the first field in which records of the same kinds differ, None where they are equal."""
    for one, other in zip(mine, theirs, strict=True):
        for name in type(one).model_fields:
            if getattr(one, name) != getattr(other, name):
                return Difference(name, getattr(one, name), getattr(other, name))
    return None


class Progress(Versioned):
    """progress.json: how far the run is, rewritten every epoch and every few seconds."""

    run_id: str
    attempt: int
    job: str
    host: str
    epoch: int
    epochs: int
    step: int
    steps: int
    started: datetime
    heartbeat: datetime
    start_epoch: int
    history: History
    notes: list[str] = []


class ErrorRecord(Versioned):
    """error.json: why the newest attempt failed. passing: for a reason outside the run, such as a full disk."""

    run_id: str
    cause: Cause
    exception: str
    message: str
    traceback: str
    attempt: int
    job: str
    host: str
    log: str
    time: datetime
    passing: bool = False


class PlannedRun(RunSpec):
    """A run as the plan has it. variant names its cell on the axes beyond the four, "" where there are none."""

    variant: str
    training_hash: str
    pool: str
    train_samples: int


class PlanRecord(Versioned):
    """plan.json: the resolved sweep as it was last submitted."""

    sweep: str
    created: datetime
    runs: list[PlannedRun]


class Options(Record):
    """How a run is executed; none of it changes what is computed beyond rounding.

    keep_checkpoints: what stays of a run's checkpoints when it is done, the state after its last epoch or nothing.
    processes: how many share a run's replicas, each with a GPU of its own where it computes on GPUs.
    """

    device: str = "auto"
    processes: int = 1
    threads: int = 0
    checkpoint_interval_s: float = 30.0
    keep_checkpoints: KeepCheckpoints = "none"


class Bundle(Versioned):
    """The runs of a submission's jobs, handed to `python -m trainer --bundle FILE --task N`.

    tasks: the runs of each job, by the index in its array. runs_folder holds a folder a run. workers: how many
    processes share a job's runs; each takes what no other has taken. mps: they share its GPU through NVIDIA's service.
    """

    submission: str
    pool: str
    data: Path
    runs_folder: Path
    options: Options
    workers: int = 1
    mps: bool = False
    tasks: list[list[RunSpec]]


class CancelRequest(Versioned):
    """cancel.json: the wish that a run stop and stay stopped. The trainer looks for it; a new submission removes it."""

    run_id: str
    requested: datetime


class Result(Versioned):
    """result.json: written last, once, by a run that finished. A run is done if and only if this validates."""

    run: Run
    training: Recipe
    training_hash: str
    data: DataRecord
    parameters: int
    history: History
    best: Best
    timing: Timing
    hardware: Hardware
    environment: Environment
    attempts: list[Attempt]

    @model_validator(mode="after")
    def _tells_one_story(self) -> "Result":
        if self.history.epochs != self.training.epochs:
            raise ValueError(f"history holds {self.history.epochs} epochs, the recipe has {self.training.epochs}")
        if self.training_hash != self.training.hash:
            raise ValueError("training_hash is not the hash of training")
        if self.best != Best.of(self.history):
            raise ValueError("best is not the best of history")
        return self


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
