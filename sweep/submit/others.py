"""Runs in other users' jobs, which those alone end or send again."""

from collections.abc import Collection, Sequence

from sweep.errors import InputError
from sweep.plan.rows import PlanRow
from sweep.status.look import Look


def without_others(look: Look, rows: Sequence[PlanRow], named: Collection[str] = ()) -> list[PlanRow]:
    """Leave out the runs that another user's job may do yet. Raises InputError where the user named one of them."""
    own = []
    for row in rows:
        whose = _owners(look, row.id)
        if not whose:
            own.append(row)
        elif row.id in named:
            raise InputError(f"{row.id} is in a job of {whose}, who alone may end it or send it again")
    return own


def _owners(look: Look, run_id: str) -> str:
    jobs = [look.jobs[run_id], *look.rivals[run_id]] if run_id in look.jobs else []
    return " and ".join(sorted({job.owner for job in jobs if job.owner and job.is_anothers}))
