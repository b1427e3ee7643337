"""One execution of a run: attempts/N.json, its claim on the run's folder while it lasts, and how it can end."""

from datetime import datetime
from enum import Enum
from typing import Literal

from trainer.records.base import Record, Versioned
from trainer.records.process import Process

Outcome = Literal["done", "failed", "interrupted", "cancelled"]


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
    had started the job anew by then. told_to_stop: whether a signal ended it; None before it ended, and in records of
    earlier versions, which have only the words.
    """

    run_id: str
    submission: str | None
    restarts: int = 0
    process: Process
    log: str
    cause: Cause | None = None
    message: str | None = None
    told_to_stop: bool | None = None

    @property
    def was_told_to_stop(self) -> bool:
        if self.told_to_stop is None:
            return (self.message or "").startswith("stopped by")  # and a signal's name
        return self.told_to_stop

    def summary(self) -> Attempt:
        """The part that result.json keeps."""
        return Attempt(**{name: getattr(self, name) for name in Attempt.model_fields})
