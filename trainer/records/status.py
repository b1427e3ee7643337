"""What a run says while it trains, progress.json, and when it fails, error.json."""

from datetime import datetime

from trainer.records.attempt import Cause
from trainer.records.base import Versioned
from trainer.records.result import History


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
