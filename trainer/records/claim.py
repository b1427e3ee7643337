"""Who owns a run's folder. Attempt N is claimed by creating attempts/N.json, which only one process can.

The highest number owns the folder; an owner that finds a higher number has been taken for dead and stops before it
writes. Nothing here relies on file locks or on clocks that agree.
"""

import errno
import os

from trainer.records.alive import heartbeat, owner_lives, shows_life
from trainer.records.attempt import AttemptRecord, Cause, Outcome
from trainer.records.base import now
from trainer.records.files import RecordError, create_exclusive, patiently, read_json, to_json, write_json
from trainer.records.process import is_alive, node_name, this_process
from trainer.records.run import RunFolder
from trainer.stop import ClaimLost


class StoodBack(Exception):
    """The run is someone else's; the message says whose."""


class Claim:
    """The right to write in a run's folder, as attempt `record.number`."""

    def __init__(self, folder: RunFolder, record: AttemptRecord) -> None:
        self.folder = folder
        self.record = record

    def check(self) -> None:
        """Raise ClaimLost if a later attempt has been made, or this one's record was taken away, and OSError."""
        number, numbers = self.record.number, patiently(self.folder.attempt_numbers)
        newest = max(numbers, default=0)
        if newest > number:
            raise ClaimLost(f"attempt {newest} has taken {self.record.run_id} over")
        if not self.folder.path.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder.attempts))
        if number not in numbers:
            raise ClaimLost(f"attempt {number} of {self.record.run_id} was taken away")

    def update(self, **changes: object) -> None:
        """Rewrite the attempt's record."""
        self.check()
        self.record = self.record.model_copy(update=changes)
        write_json(self.folder.attempt(self.record.number), self.record)

    def close(
        self,
        outcome: Outcome,
        end_epoch: int,
        cause: Cause | None = None,
        message: str | None = None,
        *,
        told_to_stop: bool = False,
    ) -> None:
        """Record how the attempt ended, which gives the claim up."""
        ending = {"outcome": outcome, "cause": cause, "message": message, "told_to_stop": told_to_stop}
        self.update(end_epoch=end_epoch, ended=now(), **ending)

    def withdraw(self) -> None:
        """Undo a claim under which nothing was done."""
        self.folder.attempt(self.record.number).unlink()

    def earlier(self) -> list[AttemptRecord]:
        """Read the attempts before this one, oldest first; one that cannot be read any more is left out."""
        records = [_read(self.folder, number) for number in range(1, self.record.number)]
        return [record for record in records if record is not None]


def take(folder: RunFolder, *, run_id: str, job: str, submission: str | None, restarts: int = 0) -> Claim:
    """Claim a run's folder as its next attempt. Raises StoodBack while another process owns it.

    Attempts that dead owners left open are closed as interrupted.
    """
    folder.attempts.mkdir(parents=True, exist_ok=True)
    folder.logs.mkdir(exist_ok=True)
    numbers = folder.attempt_numbers()
    newest = _stand_back(folder, run_id=run_id, job=job, submission=submission, restarts=restarts, watch=True)
    number = numbers[-1] + 1 if numbers else 1
    reached = _reached(folder, newest) if newest else 0
    me = this_process()
    record = AttemptRecord(
        number=number,
        started=now(),
        start_epoch=reached,  # until the checkpoint is read, which says it exactly
        end_epoch=reached,
        host=node_name(),
        job=job,
        run_id=run_id,
        submission=submission,
        restarts=restarts,
        process=me,
        log=str(folder.log(number)),
    )
    if not create_exclusive(folder.attempt(number), to_json(record)):
        raise StoodBack(f"{run_id} was taken by another process at this moment")
    for earlier in numbers:  # also one whose successor was killed before it came to this
        close_dead(folder, earlier)
    return Claim(folder, record)


def look(folder: RunFolder, *, run_id: str, job: str, submission: str | None, restarts: int = 0) -> None:
    """Raise StoodBack where a look is enough to see that `take` would. Writes nothing, waits for nothing."""
    _stand_back(folder, run_id=run_id, job=job, submission=submission, restarts=restarts, watch=False)


def _stand_back(
    folder: RunFolder, *, run_id: str, job: str, submission: str | None, restarts: int, watch: bool
) -> AttemptRecord | None:
    """Raise StoodBack if the newest attempt leaves no room for another; returns that attempt.

    Within one submission a run is attempted once: a worker that finds it attempted by a fellow worker stands back too.
    A job that Slurm has started anew goes on with what it was cut off from: a job is one process tree, so its former
    self is dead whatever its heartbeat says. watch: wait to see whether a silent owner elsewhere lives.
    """
    numbers = folder.attempt_numbers()
    if not numbers:
        return None
    newest = _read(folder, numbers[-1])
    if newest is None:
        if shows_life(folder, numbers[-1], None, watch=watch):
            raise StoodBack(f"{folder.attempt(numbers[-1])} cannot be read, and its owner gives signs of life")
        return None
    same_job = submission is not None and newest.submission == submission and newest.job == job
    cut_off = same_job and newest.restarts < restarts and newest.outcome in (None, "interrupted")
    if submission is not None and newest.submission == submission and not cut_off:
        raise StoodBack(f"{run_id} has had its attempt in this submission")
    if newest.outcome is None and not cut_off and owner_lives(folder, newest, watch=watch):
        owner = newest.process
        raise StoodBack(f"{run_id} is being trained by process {owner.pid} on {owner.host} ({newest.job})")
    return newest


def close_dead(
    folder: RunFolder,
    number: int,
    *,
    outcome: Outcome = "interrupted",
    cause: Cause = Cause.KILLED,
    message: str | None = None,
) -> None:
    """Close an attempt whose process is gone, at its last heartbeat, unless its owner has said how it ended."""
    record = _read(folder, number)
    if record is None or record.outcome is not None:
        return
    last = heartbeat(folder, number)
    ending = {
        "outcome": outcome,
        "cause": cause,
        "told_to_stop": False,
        "message": message or f"process {record.process.pid} on {record.host} ended without a word",
        "ended": last.heartbeat if last else record.started,
        "end_epoch": last.epoch if last else record.start_epoch,
    }
    write_json(folder.attempt(number), record.model_copy(update=ending))


def close_done(folder: RunFolder, epochs: int) -> bool:
    """Close the attempt of an owner that died after it wrote the run's result. Returns whether the owner is dead.

    epochs: of the recipe. Where the owner was on another host it cannot be known, and False is the answer.
    """
    numbers = folder.attempt_numbers()
    newest = _read(folder, numbers[-1]) if numbers else None
    if newest is None or is_alive(newest.process) is not False:
        return False
    if newest.outcome is not None:
        return True
    last = heartbeat(folder, newest.number)
    ending = {"outcome": "done", "end_epoch": epochs, "ended": last.heartbeat if last else newest.started}
    write_json(folder.attempt(newest.number), newest.model_copy(update=ending))
    return True


def cut_off_again(folder: RunFolder, number: int, epoch: int) -> bool:
    """Whether the attempt before one was cut off as well, and this one, after so many epochs, came no further."""
    before = _read(folder, number - 1)
    return before is not None and before.cause is Cause.LOST and before.end_epoch >= epoch


def _reached(folder: RunFolder, record: AttemptRecord) -> int:
    """The epochs an attempt had completed, as far as its files say."""
    last = heartbeat(folder, record.number)
    return max(record.end_epoch, last.epoch if last else 0)


def _read(folder: RunFolder, number: int) -> AttemptRecord | None:
    try:
        return read_json(folder.attempt(number), AttemptRecord)
    except RecordError:
        return None
