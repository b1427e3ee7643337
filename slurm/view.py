"""How a task of a job array stands, from all that Slurm has said of it. Pure.

That a job is gone takes answers of both squeue and sacct, long enough after sbatch was called: silence is no evidence.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from slurm.answers import NOT_STARTED, TERMINAL, WAITING
from slurm.causes import Ending, ending, from_log, waiting
from slurm.jobs import ArrayRecord, JobView, Phase, Snapshot, TaskRow
from slurm.queue import final
from slurm.timeouts import GRACE_S
from trainer.records.attempt import Cause

CANCELLED_WAITING = "was cancelled while it waited: it left the queue unstarted"


def view(array: ArrayRecord, index: int, snapshot: Snapshot, log_tail: Callable[[TaskRow], str]) -> JobView:
    """Say how a task of an array stands. log_tail gives the last lines of a task's log."""
    if array.refused is not None:
        return JobView(Phase.ENDED, cause=Cause.LAUNCH_FAILED, message=f"Slurm refused it: {array.refused}")
    squeue, sacct = snapshot.squeue, snapshot.sacct
    row = snapshot.tasks.get(array.tag, {}).get(index)
    if row is None:
        return _never_seen(array, snapshot)
    if row.state in TERMINAL:
        problem = None if final(row, snapshot) else squeue.problem or sacct.problem
        return _as_seen(array, row, log_tail)._replace(problem=problem)
    if not _vanished(array, index, row, snapshot):
        return _as_seen(array, row, log_tail)._replace(problem=squeue.problem)
    started = row.started is not None and row.state not in NOT_STARTED
    told = from_log(log_tail(row)) if started else None
    shown = _ended(row)._replace(known=squeue.answered, problem=squeue.problem)
    if told is not None:
        return _told(shown, told)
    if not sacct.disabled and sacct.problem is not None:
        return shown._replace(
            message="is no longer in the queue; how it ended is not known while accounting does not answer",
            problem=sacct.problem,
        )
    if not sacct.disabled and row.source == "sacct" and sacct.answered == row.seen:
        if started:
            return shown._replace(message="is no longer in the queue; accounting does not say yet how it ended")
        # Measured: scancel of a waiting task leaves no row, and sacct's row for the rest of its array as it was.
        return shown._replace(cancelled=True, message=CANCELLED_WAITING)
    if not sacct.disabled and not started and sacct.answered is not None and sacct.answered >= row.seen:
        return shown._replace(gone=True, cancelled=True, message=CANCELLED_WAITING)
    return shown._replace(gone=True, message="Slurm knows no such job any more, nor how it ended")


def last_known(
    array: ArrayRecord, index: int, snapshot: Snapshot, log_tail: Callable[[TaskRow], str], problem: str
) -> JobView:
    """Say how a task of another user's array stood when that user last looked. problem: why nobody here knows more.

    snapshot: of that user. What it no longer lists is no evidence here; only Slurm's last word on a task still holds.
    """
    row = snapshot.tasks.get(array.tag, {}).get(index)
    if row is None:
        return JobView(Phase.UNKNOWN, message="whether it is in the queue is not known", problem=problem)
    return _as_seen(array, row, log_tail)._replace(problem=None if final(row, snapshot) else problem)


def _as_seen(array: ArrayRecord, row: TaskRow, log_tail: Callable[[TaskRow], str]) -> JobView:
    """Say how a task stood when its row was seen."""
    if row.state in TERMINAL:
        return _told(_ended(row), ending(row, log_tail(row)))
    waits = row.state in WAITING
    message = waiting(row, array.resources.clusters) if waits else None
    return _ended(row)._replace(phase=Phase.WAITING if waits else Phase.RUNNING, message=message)


def _ended(row: TaskRow) -> JobView:
    return JobView(Phase.ENDED, row.job, row.restarts, node=row.node, known=row.seen)


def _told(shown: JobView, told: Ending) -> JobView:
    return shown._replace(cause=told.cause, message=told.message, cancelled=told.cancelled)


def _vanished(array: ArrayRecord, index: int, row: TaskRow, snapshot: Snapshot) -> bool:
    """Tell whether squeue has answered since a row was seen, and no longer lists its task."""
    answered = snapshot.squeue.answered
    if answered is None or answered < row.seen or index in snapshot.present.get(array.tag, []):
        return False
    return row.source == "squeue" or _long_after(array, answered)


def _never_seen(array: ArrayRecord, snapshot: Snapshot) -> JobView:
    """Say how a task stands of which Slurm never told: that it is gone takes an answer of both."""
    squeue, sacct = snapshot.squeue, snapshot.sacct
    if array.asked is None:
        return JobView(Phase.UNKNOWN, message="is not submitted yet")
    if squeue.answered is not None and _long_after(array, squeue.answered):
        if sacct.disabled or (sacct.problem is None and sacct.answered and _long_after(array, sacct.answered)):
            words = "Slurm knows no such job: it was cancelled before it began, or never accepted"
            return JobView(Phase.ENDED, gone=True, message=words, known=squeue.answered, problem=squeue.problem)
        return JobView(Phase.UNKNOWN, message="is not in the queue", problem=sacct.problem, known=squeue.answered)
    words = "is not in the queue yet" if squeue.problem is None else "whether it is in the queue is not known"
    return JobView(Phase.UNKNOWN, message=words, problem=squeue.problem)


def _long_after(array: ArrayRecord, moment: datetime) -> bool:
    """Tell whether a moment is so long after sbatch was called that Slurm must have the job, if it ever will."""
    return array.asked is not None and moment > array.asked + timedelta(seconds=GRACE_S)
