"""`--where AXIS=VALUE[,VALUE]`: the runs that a command is to look at or act on."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from sweep.config.axes import AXES
from sweep.config.grid import axes_of, written
from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.words import nearest
from trainer.models.catalog import short_name
from trainer.records.recipe import Recipe

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="AXIS=VALUE[,VALUE]", help="only runs with one of these values; may be repeated"),
]
T = TypeVar("T")


def narrowed(sweep: Sweep, where: Sequence[str] | None) -> Callable[[Iterable[T]], list[T]]:
    """What keeps, of things with a run's `id`, those of the runs that every condition holds for.

    A condition may be of any axis, and of any field of the recipe. Raises InputError for one that no run can meet.
    """
    if not where:
        return list
    runs = list(sweep.runs)
    for condition in where:
        axis, equals, text = condition.partition("=")
        names = [*AXES, *Recipe.model_fields]
        if not equals or axis not in names:
            problem = f"unknown axis '{axis}'{nearest(axis, names)}" if equals else "expected AXIS=VALUE[,VALUE]"
            raise InputError(f"--where {condition}: {problem}")
        for wanted in text.split(","):
            held = dict.fromkeys(_shown(axis, axes_of(run.spec, [axis])[axis]) for run in sweep.runs)
            if not any(_is(axis, axes_of(run.spec, [axis])[axis], wanted) for run in sweep.runs):
                raise InputError(f"--where {condition}: no run has {axis} '{wanted}'{nearest(wanted, held)}")
        runs = [
            run for run in runs if any(_is(axis, axes_of(run.spec, [axis])[axis], wanted) for wanted in text.split(","))
        ]
    ids = {run.id for run in runs}
    return lambda things: [thing for thing in things if _id(thing) in ids]


def _id(thing: Any) -> str:
    return str(thing.id if hasattr(thing, "id") else thing.run.id)


def _is(axis: str, value: Any, wanted: str) -> bool:
    """Whether a value is the one that is written: numbers in any form, networks by their short name too."""
    if wanted in (_shown(axis, value), str(value)):
        return True
    try:
        return not isinstance(value, (bool, str)) and float(value) == float(wanted)
    except (TypeError, ValueError):
        return False


def _shown(axis: str, value: Any) -> str:
    return short_name(value) if axis == "architecture" else written(value)
