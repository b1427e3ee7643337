"""The words for jobs: what was asked of Slurm, what Slurm last said of it, and what that comes to. Records only."""

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.records.attempt import Cause
from trainer.records.base import Record, Versioned
from trainer.records.code import Code
from trainer.records.process import Process

WITHDRAWN = "withdrawn.json"  # beside an array's bundle: it was given up, its runs went into another


class ContainerRecord(Record):
    """What an array's tasks run in. mounts: "/folder:/inside" or "/folder:/inside:ro"; gpu: whether they use one."""

    image: str
    runtime: str
    python: str
    mounts: list[str]
    gpu: bool


class Resources(Record):
    """What each job of an array asks for, in Slurm's words; None where the site decides.

    sbatch: further options, by their long names.
    """

    clusters: str | None = None
    partition: str | None = None
    gres: str | None = None
    constraint: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus: int = 1
    memory_gb: float | None = 8.0
    time_limit_min: int | None = 60
    export: Literal["all", "none"] | list[str] = "all"
    modules: list[str] = []
    setup: list[str] = []
    container: ContainerRecord | None = None
    exclude: list[str] = []
    sbatch: dict[str, str | int | bool] = {}


class WorkerRecord(Record):
    """A local worker that was started."""

    id: str
    process: Process


class ArrayRecord(Record):
    """One job array: one sbatch. tag is its job name, unique for ever; tasks are the run ids by task index.

    asked: when sbatch was about to be called. job: the array's id, once Slurm has named it. refused: Slurm's sentence
    when it clearly said no. race: a number that it shares with the arrays of the same tasks in other pools, of which
    the first to start a task does it.
    """

    tag: str
    pool: str
    resources: Resources
    tasks: list[list[str]]
    asked: datetime | None = None
    job: str | None = None
    refused: str | None = None
    race: int | None = None


class Origin(Record):
    """Who sent a submission's jobs, from which cluster and folder: nobody else can see them, or has them.

    folder: that of the submissions, absolute; inode tells it from a copy. cluster: None where that was not to be known.
    """

    user: str
    uid: int
    cluster: str | None
    folder: str
    inode: int


class Submission(Versioned):
    """submissions/<token>.json: the intent to execute these runs, written before any job starts; then the jobs.

    submitter: the process that is, or was, at it. jobs: local workers. arrays: what was, or is to be, sent to Slurm.
    origin: None of local workers, and in records of earlier versions. codes: what the jobs of each array run, local
    workers those of array 0; empty in records of earlier versions, whose jobs ran what was installed.
    """

    token: str
    created: datetime
    executor: str
    submitter: Process | None = None
    runs: list[str]
    origin: Origin | None = None
    jobs: list[WorkerRecord] = []
    arrays: list[ArrayRecord] = []
    codes: list[Code] = []

    def code(self, number: int = 0) -> Code | None:
        """What the jobs of an array run."""
        return self.codes[number] if self.codes else None

    def runs_of(self, number: int) -> list[str]:
        """The runs of an array, or of all local workers."""
        return [run_id for task in self.arrays[number].tasks for run_id in task] if self.arrays else self.runs

    def code_of(self, run_id: str) -> Code | None:
        """What the job of a run runs."""
        return next((code for number, code in enumerate(self.codes) if run_id in self.runs_of(number)), None)


class SubmissionFolder(NamedTuple):
    """submissions/<token>/: what the jobs of a submission read and print, a folder an array."""

    path: Path

    @property
    def token(self) -> str:
        return self.path.name

    def array(self, number: int = 0) -> Path:
        return self.path / str(number)

    def bundle(self, number: int = 0) -> Path:
        return self.array(number) / "bundle.json"

    def withdrawn(self, number: int) -> Path:
        """The file that keeps an array's jobs from working, should they come to light after all."""
        return self.array(number) / WITHDRAWN


class StepRow(Record):
    """A job step as sacct has it: "batch", "extern", "0"."""

    name: str
    state: str
    exit_code: str


class TaskRow(Record):
    """One array task as Slurm last told of it.

    state: Slurm's word without what follows it ("CANCELLED by 1000" is CANCELLED). job: "123_4". restarts: None where
    the source does not say (sacct). seen: when Slurm said so.
    """

    job: str
    state: str
    seen: datetime
    source: str
    reason: str | None = None
    node: str | None = None
    exit_code: str | None = None
    derived_exit_code: str | None = None
    restarts: int | None = None
    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    cancelled_by: str | None = None
    steps: list[StepRow] = []


class Answer(Record):
    """How a query went: when it last answered, when it was last asked, and what was wrong if that failed.

    disabled: it will never answer here (accounting is off).
    """

    answered: datetime | None = None
    asked: datetime | None = None
    problem: str | None = None
    disabled: bool = False


class Snapshot(Versioned):
    """All that Slurm has said of a sweep's jobs, newest word each; kept between commands in queue.json.

    tasks: by tag, then by task index. present: the tags squeue showed in its last answer, with the indices there.
    absent: tags of arrays, or "tag/index" of tasks, that Slurm was asked for by number as well, and no longer has.
    """

    squeue: Answer = Answer()
    sacct: Answer = Answer()
    tasks: dict[str, dict[int, TaskRow]] = {}
    present: dict[str, list[int]] = {}
    absent: list[str] = []


class Phase(str, Enum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


class JobView(NamedTuple):
    """What is known of a job. known: when that was so; problem: why nothing newer is known.

    Of an ended one: cause, None when it ended well or nobody can say; cancelled: by a user's or administrator's wish;
    gone: no scheduler knows of it any more, nor how it ended.
    """

    phase: Phase
    id: str | None = None
    restarts: int | None = None
    cause: Cause | None = None
    message: str | None = None
    node: str | None = None
    log: str | None = None
    cancelled: bool = False
    gone: bool = False
    known: datetime | None = None
    problem: str | None = None
