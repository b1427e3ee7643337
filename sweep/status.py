"""How each run stands: a function from what the run left on disk and which jobs live to a state. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from sweep.config import PlacedRun
from sweep.store import Evidence, Submission
from trainer.records import AttemptRecord, Cause, Result, RunFolder


class State(str, Enum):
    """The states a run can be in, in the order they are shown."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STALE = "stale"
    PLANNED = "planned"


class RunStatus(NamedTuple):
    """One run as `sweep status` shows it; epoch counts completed ones, updated is the last sign of life."""

    id: str
    architecture: str
    dataset: str
    ratio: float
    seed: int
    state: State
    cause: Cause | None = None
    message: str | None = None
    epoch: int = 0
    epochs: int = 0
    attempt: int = 0
    job: str | None = None
    node: str | None = None
    log: str | None = None
    updated: datetime | None = None
    best_val_accuracy: float | None = None


class Jobs(NamedTuple):
    """What is known of jobs.

    holders: by run id, the newest submission that lists it and has a living job. dead: the runs whose open attempt's
    process is known to be gone.
    """

    holders: Mapping[str, Submission]
    dead: Collection[str]


def run_status(
    placed: PlacedRun, evidence: Evidence, jobs: Jobs, fingerprint: str | None, folder: RunFolder
) -> RunStatus:
    """Give the state of one run.

    fingerprint: of the dataset as prepared now, None when it is not. A query that could not be answered is not in
    `jobs`, so it never makes a run dead.
    """
    run = placed.cell.spec.run
    blank = RunStatus(
        id=run.id,
        architecture=run.architecture,
        dataset=run.dataset,
        ratio=run.ratio,
        seed=run.seed,
        state=State.PLANNED,
        epochs=placed.cell.spec.training.epochs,
    )
    if evidence.result is not None:
        return _finished(blank, placed, evidence.result, fingerprint, folder)
    holder = jobs.holders.get(run.id)
    attempt = evidence.attempt
    waiting = holder is not None and (attempt is None or attempt.submission != holder.token)
    if attempt is None:
        if evidence.cancelled:
            return blank._replace(state=State.CANCELLED)
        if waiting:
            return blank._replace(state=State.QUEUED)
        if evidence.problems:
            return blank._replace(state=State.FAILED, cause=Cause.EXCEPTION, message=evidence.problems[0])
        return blank
    shown = _with_attempt(blank, attempt, evidence, folder)
    if attempt.outcome is None and run.id not in jobs.dead:
        return shown._replace(state=State.RUNNING)
    if waiting and not evidence.cancelled:
        return shown._replace(state=State.QUEUED)
    other = _other_work(placed, evidence, fingerprint)
    if other:
        return blank._replace(message=f"an earlier attempt had another {other}; it is set aside when this is submitted")
    return _ended(shown, attempt, evidence)


def counts(statuses: Collection[RunStatus]) -> dict[str, int]:
    """Count the runs in each state that occurs, in the order of `State`."""
    counted = Counter(status.state for status in statuses)
    return {state.value: counted[state] for state in State if counted[state]}


def _finished(
    blank: RunStatus, placed: PlacedRun, result: Result, fingerprint: str | None, folder: RunFolder
) -> RunStatus:
    last = result.attempts[-1] if result.attempts else None
    shown = blank._replace(
        state=State.DONE,
        epoch=result.history.epochs,
        attempt=last.number if last else 0,
        job=last.job if last else None,
        node=result.hardware.host,
        log=str(folder.log(last.number)) if last else None,
        updated=last.ended if last else None,
        best_val_accuracy=result.best.val_accuracy.value,
    )
    other = None
    if result.run != placed.cell.spec.run:
        other = "run"
    elif result.training_hash != placed.cell.spec.training.hash:
        other = "recipe"
    elif fingerprint and result.data.fingerprint != fingerprint:
        other = "dataset"
    if other:
        return shown._replace(state=State.STALE, message=f"done, with another {other} than the plan's")
    return shown


def _with_attempt(blank: RunStatus, attempt: AttemptRecord, evidence: Evidence, folder: RunFolder) -> RunStatus:
    progress = evidence.progress
    mine = progress is not None and progress.attempt == attempt.number
    accuracies = progress.history.val_accuracy if progress else []
    return blank._replace(
        epoch=progress.epoch if progress and mine else attempt.end_epoch,
        attempt=attempt.number,
        job=attempt.job,
        node=attempt.host,
        log=str(folder.log(attempt.number)),
        updated=attempt.ended or (progress.heartbeat if progress and mine else attempt.started),
        best_val_accuracy=max(accuracies, default=None),
    )


def _other_work(placed: PlacedRun, evidence: Evidence, fingerprint: str | None) -> str | None:
    """Name what makes an unfinished run's files useless for the plan, None when they fit."""
    found = evidence.commitment
    if found is None:
        return None
    if found.training != placed.cell.spec.training:
        return "recipe"
    if fingerprint and found.data_fingerprint != fingerprint:
        return "dataset"
    return None


def _ended(shown: RunStatus, attempt: AttemptRecord, evidence: Evidence) -> RunStatus:
    """Say how an attempt that no process works on any more ended."""
    match attempt.outcome:
        case "failed":
            error = evidence.error
            mine = error is not None and error.attempt == attempt.number
            return shown._replace(
                state=State.FAILED,
                cause=attempt.cause or Cause.EXCEPTION,
                message=f"{error.exception}: {error.message}" if error and mine else attempt.message,
            )
        case "cancelled":
            return shown._replace(state=State.CANCELLED)
        case "done":
            reason = evidence.problems[0] if evidence.problems else "its result.json is gone"
            return shown._replace(state=State.FAILED, cause=Cause.EXCEPTION, message=f"finished, but {reason}")
        case _:
            message = attempt.message or f"its process on {attempt.host} ended without a word"
            state = State.CANCELLED if evidence.cancelled else State.INTERRUPTED
            return shown._replace(state=state, cause=attempt.cause or Cause.KILLED, message=message)
