"""Whether a process still lives: its own host's kernel knows; from elsewhere only signs are seen, or silence."""

import time
from datetime import datetime, timedelta

from trainer.records.attempt import AttemptRecord
from trainer.records.base import now
from trainer.records.files import RecordError, read_json
from trainer.records.process import is_alive
from trainer.records.run import RunFolder
from trainer.records.status import Progress

HEARTBEAT_S = 5.0

# What silence means of a process that the kernel here cannot tell of.
FRESH_S = 60.0  # a heartbeat this close to our clock is taken as a living owner's
SILENCE_S = 4 * HEARTBEAT_S  # watched this long without a change, an owner on another host is dead
SUBMITTING_S = 600.0  # a submission takes seconds: one that is older and not through was cut off
ABANDONED_S = 3600.0  # after as long without a sign nobody comes back, on whatever host
STALLED_S = 600.0  # a run at work shows itself every HEARTBEAT_S; file servers have held one up for minutes
STALLED_EPOCHS = 3.0  # and it may take so many of its longest epochs, should one be a single step
IN_FLIGHT_S = 60.0  # the writing of a file takes less: one that is older and unfinished has no writer


def owner_lives(folder: RunFolder, record: AttemptRecord, *, watch: bool = True) -> bool:
    """Whether the process of an open attempt still works.

    On its own host the kernel knows. From elsewhere only heartbeats can be seen: a recent one counts, and one that
    changes while watched counts whatever the clocks say.
    """
    alive = is_alive(record.process)
    return shows_life(folder, record.number, record.started, watch=watch) if alive is None else alive


def at_work(record: AttemptRecord | None) -> bool | None:
    """Whether an attempt's process works on it; None where only its own host can tell."""
    return is_alive(record.process) if record and record.outcome is None else False


def silent(last_sign: datetime, longer_than_s: float) -> bool:
    """Whether the last sign of life is older than a process like that is ever silent."""
    return now() - last_sign > timedelta(seconds=longer_than_s)


def stalled_s(record: AttemptRecord, progress: Progress | None, limit_s: float | None) -> float | None:
    """For how long an open attempt has shown nothing, in seconds; None where that is not too long.

    limit_s: what is too long, 0 for nothing, None for what its own epochs tell.
    """
    mine = progress if progress and progress.attempt == record.number else None
    if limit_s is None:
        epochs = mine.history.epoch_seconds if mine else []
        limit_s = max(STALLED_S, STALLED_EPOCHS * max(epochs, default=0.0))
    silence_s = (now() - (mine.heartbeat if mine else record.started)).total_seconds()
    return silence_s if 0 < limit_s < silence_s else None


def shows_life(folder: RunFolder, number: int, started: datetime | None, *, watch: bool) -> bool:
    """Whether an attempt's heartbeat is recent, or changes while it is watched; started counts before the first."""
    first = heartbeat(folder, number)
    last_sign = first.heartbeat if first else started
    if last_sign and abs((now() - last_sign).total_seconds()) < FRESH_S:
        return True
    if not watch:
        return False
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(1)
        if heartbeat(folder, number) != first:
            return True
    return False


def heartbeat(folder: RunFolder, number: int) -> Progress | None:
    """The newest progress, if it is of this attempt and readable."""
    try:
        progress = read_json(folder.progress, Progress)
    except RecordError:
        return None
    return progress if progress and progress.attempt == number else None
