"""Whether Slurm has an array: from what sbatch said, and later from what Slurm lists. Pure."""

import re
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from slurm.jobs import ArrayRecord, Snapshot

if TYPE_CHECKING:
    pass


SBATCH_S = 30  # three times the 10 s after which Slurm's clients give up by themselves
KILL_AFTER_S = 5  # for an sbatch that does not heed its timeout

# An sbatch that failed, or outlives its killed submitter, may still be accepted, and seen later: by then it has ended,
# and slurmctld has worked its queue off or is down.
SETTLE_S = SBATCH_S + KILL_AFTER_S + 5.0

# Slurm's answers that leave open whether the job was taken. Any other "submission failed" is a clear no.
UNCLEAR = re.compile(
    r"timed out|unable to contact|communication|connection|transport|zero bytes|standby|unexpected message|"
    r"protocol|insane|authentication|munge|munged|try again|receive",
    re.IGNORECASE,
)
REFUSED = re.compile(r"(?:submission failed: |sbatch: error: |sbatch: )(.+)")


class Refused(Exception):
    """Slurm clearly did not take the array."""


class Unclear(Exception):
    """Slurm gave no clear answer: the array may have been taken."""


class Standing(str, Enum):
    """Whether Slurm has an array."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"


class Settled(NamedTuple):
    """Whether Slurm has an array, and the reason if that is not a plain yes."""

    standing: Standing
    words: str | None = None


def settle(array: ArrayRecord, submitter_alive: bool | None, snapshot: Snapshot, now: datetime) -> Settled:
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
            left = (clear_after - now).total_seconds()
            when = f"known in {left:.0f} s" if left > 0 else f"{name} has not answered since: {answer.problem or ''}"
            return Settled(Standing.UNCONFIRMED, f"sbatch gave no clear answer; {when}".rstrip(": "))
    return Settled(Standing.REFUSED, "sbatch failed, and Slurm never had the job")


def read_failure(words: str, cause: BaseException | None) -> Exception:
    code = getattr(cause, "returncode", None)
    if code in (124, 137):
        return Unclear(f"sbatch did not answer within {SBATCH_S} s")
    said = REFUSED.findall(words)
    sentence = said[-1].strip() if said else _last_line(words) or f"sbatch failed with exit code {code}"
    if not said or UNCLEAR.search(words):
        return Unclear(sentence)
    return Refused(sentence)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
