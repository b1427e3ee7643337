"""Whether Slurm has an array whose submission did not end well: adopted, refused, or left open, never guessed."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from slurm.jobs import ArrayRecord, Snapshot, Submission, SubmissionFolder
from slurm.origin import unseen
from slurm.timeouts import SETTLE_S
from trainer.records.base import now


class Standing(str, Enum):
    """Whether Slurm has an array."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"


class Settled(NamedTuple):
    """Whether Slurm has an array, and the reason if that is not a plain yes."""

    standing: Standing
    words: str | None = None


def settle(array: ArrayRecord, submitter_alive: bool | None, snapshot: Snapshot, moment: datetime) -> Settled:
    """Find out whether Slurm has an array, from what the submitter wrote down and what Slurm lists. Pure.

    submitter_alive: None when that cannot be known from here. An array nobody lists is called refused only when squeue
    and sacct (unless accounting is off) have answered long enough after sbatch was called.
    """
    if array.refused is not None:
        return Settled(Standing.REFUSED, array.refused)
    if array.job is not None or snapshot.tasks.get(array.tag):
        return Settled(Standing.ACCEPTED)
    if submitter_alive:
        return Settled(Standing.UNCONFIRMED, "it is being submitted")
    if array.asked is None:
        if submitter_alive is None:
            return Settled(Standing.UNCONFIRMED, "it is being submitted from another host")
        return Settled(Standing.REFUSED, "its submission was cut off before sbatch was called")
    clear_after = array.asked + timedelta(seconds=SETTLE_S)
    for name, answer in (("squeue", snapshot.squeue), ("sacct", snapshot.sacct)):
        if answer.disabled:
            continue
        if answer.answered is None or answer.answered < clear_after:
            left = (clear_after - moment).total_seconds()
            when = f"known in {left:.0f} s" if left > 0 else f"{name} has not answered since: {answer.problem or ''}"
            return Settled(Standing.UNCONFIRMED, f"sbatch gave no clear answer; {when}".rstrip(": "))
    return Settled(Standing.REFUSED, "sbatch failed, and Slurm never had the job")


def withdraw(
    folder: Path, submissions: Sequence[Submission], submitting: Mapping[str, bool | None], queue: Snapshot
) -> None:
    """Make sure that the arrays Slurm was found not to have do no work, should they come to light after all.

    Another user's are left as they are: nothing is found of that user's jobs. folder holds the submissions; submitting:
    by token, whether the process that submits is still at it. Raises OSError.
    """
    for submission in submissions:
        if unseen(submission.origin):
            continue  # nor are its runs sent again
        for number, array in enumerate(submission.arrays):
            if array.refused is not None:
                continue
            found = settle(array, submitting[submission.token], queue, now())
            certain = array.asked is None or array.tag in queue.absent
            mark = SubmissionFolder(folder / submission.token).withdrawn(number)
            if found.standing is Standing.REFUSED and certain and not mark.exists():
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
