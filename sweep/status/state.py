"""How each run stands: a function from what the run left on disk and what is known of its jobs to a state. Pure."""

import re
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from slurm.jobs import JobView, Phase
from sweep.config.schema import PlacedRun
from sweep.status.evidence import Evidence
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.result import Result
from trainer.records.run import Run, RunFolder, other_work


class State(str, Enum):
    """The states a run can be in, in the order they are shown."""

    DONE = "done"
    RUNNING = "running"
    STALLED = "stalled"
    STARTING = "starting"
    QUEUED = "queued"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STALE = "stale"
    PLANNED = "planned"


ON_ITS_WAY = (State.RUNNING, State.STARTING, State.QUEUED)  # goes on by itself


class RunStatus(NamedTuple):
    """How a run stands; epoch counts completed ones, updated is the last sign of life.

    Where the run goes and what it costs is not here: a `PlanRow` joins the two. frame: where an exception was raised.
    passing: it failed for a reason outside the run, such as a full disk, and may do well when that is mended.
    stale_since: when Slurm was last heard of the run's job, where it does not answer now; problem: why.
    """

    run: Run
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
    frame: str | None = None
    passing: bool = False
    stale_since: datetime | None = None
    problem: str | None = None

    @property
    def id(self) -> str:
        return self.run.id


class Carrier(NamedTuple):
    """The job that carries a run: its submission's token, what is known of it, whether it has begun any of its runs.

    first: whether the run is the one that it begins with.
    """

    token: str
    job: JobView
    began: bool = True
    first: bool = False


class Jobs(NamedTuple):
    """What is known of the jobs of an unfinished run.

    newest: the one in the newest submission that lists the run. own: the one that its newest attempt belongs to, None
    for an attempt started by hand or here. alive: whether that attempt's process works on it, None when that cannot be
    seen from here. silence_s: for how long an open attempt has shown no sign, where that is too long.
    """

    newest: Carrier | None = None
    own: JobView | None = None
    alive: bool | None = None
    silence_s: float | None = None


NO_JOBS = Jobs()
STARTED_ANEW = "its job has started anew and goes on with it"
LEFT_TO_JOB = "its job was told to stop, and goes on or ends within minutes"
# What ended a job before this run's turn, and is no fault of the run: it waits for the next submission.
BEFORE_ITS_TURN = (Cause.TIMEOUT, Cause.PREEMPTED, Cause.NODE_FAIL, Cause.HOST_OOM, Cause.KILLED)


def run_status(
    placed: PlacedRun, evidence: Evidence, jobs: Jobs, fingerprint: str | None, folder: RunFolder
) -> RunStatus:
    """Decide how a run stands.

    fingerprint: of the dataset as prepared now, None when it is not. A query that could not be answered leaves what was
    known before, so it never makes a run dead.
    """
    blank = RunStatus(placed.spec.run, State.PLANNED, epochs=placed.spec.training.epochs)
    if evidence.result is not None:
        return _finished(blank, placed, evidence.result, fingerprint, folder)
    attempt, newest = evidence.attempt, jobs.newest
    begun = attempt is not None and newest is not None and attempt.submission == newest.token
    shown = _with_attempt(blank, attempt, evidence, folder) if attempt else blank
    if attempt and attempt.outcome is None and _works(attempt, jobs):
        if jobs.silence_s is None or not _lives(jobs):
            return _marked(shown._replace(state=State.RUNNING), jobs.own)
        words = f"has shown no sign for {jobs.silence_s / 60:.0f} min; 'sweep retry {shown.id}' ends it and goes on"
        return _marked(shown._replace(state=State.STALLED, message=words), jobs.own)
    if newest and not evidence.cancelled and not begun:
        waiting = _before_its_turn(shown, newest)
        if waiting:
            return waiting
    if attempt is None:
        if evidence.cancelled:
            return blank._replace(state=State.CANCELLED)
        if evidence.problems:
            damaged = evidence.problems[0]
            return blank._replace(state=State.FAILED, cause=Cause.EXCEPTION, message=damaged, passing=True)
        return blank._replace(message=_cut_off(newest)) if newest else blank
    if begun and newest and not evidence.cancelled and _goes_on(attempt, newest.job):
        on_its_way = STARTED_ANEW if newest.job.phase is Phase.RUNNING and _anew(attempt, newest.job) else LEFT_TO_JOB
        return _marked(shown._replace(state=State.QUEUED, message=newest.job.message or on_its_way), newest.job)
    begun_for = evidence.commitment
    other = other_work(begun_for, placed.spec, fingerprint) if begun_for else None
    if other:
        words = f"an earlier attempt had another {other.value}; it is set aside when this is submitted"
        return blank._replace(message=words)
    return _ended(shown, attempt, evidence, jobs.own)


def counts(statuses: Collection[RunStatus]) -> dict[str, int]:
    """The number of runs in each state that occurs, in the order of `State`."""
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
    other = other_work(result.commitment, placed.spec, fingerprint)
    if other:
        return shown._replace(state=State.STALE, message=f"done, with another {other.value} than the plan's")
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


def _lives(jobs: Jobs) -> bool:
    """Whether an attempt's process, or its job, was just seen alive: only then is its silence a stall."""
    job = jobs.own
    return jobs.alive is True or (job is not None and job.phase is Phase.RUNNING and job.problem is None)


def _works(attempt: AttemptRecord, jobs: Jobs) -> bool:
    """Whether an open attempt is still worked on. What Slurm says of its job comes before what is seen here.

    But not what it said before the attempt began, where nothing newer is known.
    """
    job = jobs.own
    outdated = job is not None and job.problem is not None and job.known is not None and job.known < attempt.started
    if job is None or job.phase is Phase.UNKNOWN or outdated:
        return jobs.alive is not False
    if job.phase is Phase.RUNNING:
        return job.restarts is None or attempt.restarts >= job.restarts
    return job.phase is Phase.ENDED and job.gone and jobs.alive is True


def _before_its_turn(shown: RunStatus, carrier: Carrier) -> RunStatus | None:
    """Decide how a run stands that its newest job has not begun; None where an ended job leaves it as it was."""
    job = carrier.job
    at = shown._replace(job=job.id, node=job.node) if job.id else shown
    if job.phase is Phase.RUNNING and job.id and carrier.first and not carrier.began:
        words = f"its job runs on {job.node}, and has not reported yet" if job.node else "its job has not reported yet"
        return _marked(at._replace(state=State.STARTING, cause=None, message=words), job)
    if job.phase is not Phase.ENDED:
        return _marked(at._replace(state=State.QUEUED, cause=None, message=job.message), job)
    failed = at._replace(state=State.FAILED, message=job.message, log=job.log)
    if job.cancelled:
        return at._replace(state=State.CANCELLED, message=job.message)
    if job.gone:
        return failed._replace(
            cause=Cause.LOST, message=job.message or "Slurm knows no such job, and it left no record"
        )
    if not carrier.began and job.cause in (Cause.HOST_OOM, Cause.TIMEOUT):
        return failed._replace(cause=job.cause)
    if job.cause is None or (job.cause in BEFORE_ITS_TURN and (carrier.began or job.cause is not Cause.KILLED)):
        return None
    return failed._replace(cause=Cause.LAUNCH_FAILED)


def _cut_off(newest: Carrier) -> str | None:
    job = newest.job
    if job.phase is Phase.ENDED and job.cause:
        return f"its job {job.id} ended before its turn: {job.message or job.cause.value}"
    return job.message


def _goes_on(attempt: AttemptRecord, job: JobView) -> bool:
    """Whether the job that interrupted a run will go on with it: Slurm starts it anew, or is about to."""
    if attempt.outcome not in (None, "interrupted"):
        return False
    if job.id is None:
        return attempt.was_told_to_stop and job.phase is Phase.UNKNOWN and job.problem is not None
    if job.phase is Phase.WAITING:
        return True
    if job.phase is not Phase.RUNNING:
        return False
    return _anew(attempt, job) or attempt.was_told_to_stop


def _anew(attempt: AttemptRecord, job: JobView) -> bool:
    return job.restarts is not None and attempt.restarts < job.restarts


def _marked(shown: RunStatus, job: JobView | None) -> RunStatus:
    """Note since when nothing newer is known, where Slurm does not answer."""
    if job is None or job.problem is None:
        return shown
    return shown._replace(stale_since=job.known, problem=job.problem)


def _ended(shown: RunStatus, attempt: AttemptRecord, evidence: Evidence, job: JobView | None) -> RunStatus:
    """Decide how a run stands whose newest attempt has ended: no process works on it any more."""
    match attempt.outcome:
        case "failed":
            error = evidence.error
            mine = error is not None and error.attempt == attempt.number
            return shown._replace(
                state=State.FAILED,
                cause=attempt.cause or Cause.EXCEPTION,
                message=f"{error.exception}: {error.message}" if error and mine else attempt.message,
                frame=last_frame(error.traceback) if error and mine else None,
                passing=error.passing if error and mine else False,
            )
        case "cancelled":
            return shown._replace(state=State.CANCELLED)
        case "done":
            reason = evidence.problems[0] if evidence.problems else "its result.json is gone"
            lost = f"finished, but {reason}"
            return shown._replace(state=State.FAILED, cause=Cause.EXCEPTION, message=lost, passing=True)
        case _:
            return _interrupted(shown, attempt, evidence, job)


def _interrupted(shown: RunStatus, attempt: AttemptRecord, evidence: Evidence, job: JobView | None) -> RunStatus:
    """Name what cut an attempt off: Slurm's word on its job, or what the attempt says itself."""
    if evidence.cancelled:
        return shown._replace(state=State.CANCELLED, message=attempt.message)
    ended = job if job and job.phase is Phase.ENDED else None
    cause = attempt.cause or Cause.KILLED
    message = attempt.message or f"its process on {attempt.host} ended without a word"
    if ended and cause in (Cause.KILLED, Cause.LOST):
        if ended.cancelled:
            return shown._replace(state=State.CANCELLED, message=ended.message)
        if ended.cause:
            # An exit code that nobody explained is Slurm's for "some process died"; the attempt may say more.
            unexplained = ended.cause is Cause.EXCEPTION
            cause = cause if unexplained else ended.cause
            message = (attempt.message if unexplained else None) or ended.message or message
        elif attempt.outcome is None:
            message = ended.message or f"its job {attempt.job} ended without a word"
    stuck = cause is Cause.TIMEOUT and shown.epoch <= attempt.start_epoch
    failed = cause in (Cause.HOST_OOM, Cause.CUDA_OOM, Cause.LAUNCH_FAILED) or stuck
    state = State.FAILED if failed else State.INTERRUPTED
    return _marked(shown._replace(state=state, cause=cause, message=message), job)


FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)


def last_frame(traceback: str) -> str | None:
    """Where an exception was raised, as "file:line in function"."""
    frames = FRAME.findall(traceback)
    return f"{Path(frames[-1][0]).name}:{frames[-1][1]} in {frames[-1][2]}" if frames else None
