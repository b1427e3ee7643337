"""Which runs to try again, and what to do differently, from the cause of each. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from sweep.config import nearest
from sweep.errors import InputError
from sweep.plan import PlanRow
from sweep.status import State
from trainer.records import Cause

ON_ITS_WAY = (State.RUNNING, State.QUEUED)


class Remedy(NamedTuple):
    """A run and what trying it again comes to. again: whether it makes sense to try."""

    row: PlanRow
    again: bool
    words: str


def choose(rows: Sequence[PlanRow], names: Sequence[str]) -> list[Remedy]:
    """Give the remedy of each named run, or of each failed one when none is named.

    Raises InputError for a name that is no run, and for a run that is done or on its way.
    """
    if not names:
        return [remedy(row, asked=False) for row in rows if row.status.state is State.FAILED]
    return [remedy(_named(rows, name), asked=True) for name in names]


def remedy(row: PlanRow, *, asked: bool) -> Remedy:
    """Say what trying a run again comes to; asked: the user named it."""
    state, cause, epoch = row.status.state, row.status.cause, row.status.epoch
    start = f"goes on after epoch {epoch}" if epoch else "starts again"
    if state is State.STALE:
        return Remedy(row, True, "is trained anew; its old result is set aside")
    if cause is Cause.DIVERGED and not asked:
        return Remedy(row, False, "diverged and would again with the same recipe; change the recipe, or name the run")
    if cause is Cause.HOST_OOM:
        return Remedy(row, True, f"{start}; it ran out of memory: give it more with '--workers 1'")
    return Remedy(row, True, start)


def _named(rows: Sequence[PlanRow], name: str) -> PlanRow:
    for row in rows:
        if row.id == name:
            if row.status.state in (*ON_ITS_WAY, State.DONE):
                raise InputError(f"{name} is {row.status.state.value}; there is nothing to retry")
            return row
    raise InputError(f"no run '{name}' in this sweep{nearest_run(name, rows)}")


def nearest_run(name: str, rows: Sequence[PlanRow]) -> str:
    """Offer the nearest run id; a long list of ids helps nobody."""
    hint = nearest(name, [row.id for row in rows])
    return hint if "did you mean" in hint else "; 'sweep status' lists them"
