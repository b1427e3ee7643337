"""From axes to runs: the product, the ids, each run's recipe. Pure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainer.records.recipe import Recipe
from trainer.records.run import Run, RunSpec

AXES = ("architecture", "dataset", "ratio", "seed")


class Cell(NamedTuple):
    """One run of the grid: its axes by name, what it is, and the variant its further axes make ("" without any)."""

    axes: dict[str, Any]
    spec: RunSpec
    variant: str


def expand(grid: Mapping[str, Sequence[Any]], recipe: Recipe) -> list[Cell]:
    """Give every combination of the axes, the last axis fastest.

    Axes beyond the four are fields of the recipe; they become part of the run's id. Raises pydantic's ValidationError
    when the recipe does not allow a value.
    """
    names = [*AXES, *(name for name in grid if name not in AXES)]
    return [
        _cell(dict(zip(names, values, strict=True)), recipe)
        for values in itertools.product(*(grid[name] for name in names))
    ]


def _cell(axes: dict[str, Any], recipe: Recipe) -> Cell:
    further = {name: value for name, value in axes.items() if name not in AXES}
    variant = "-".join(f"{name}={_written(value)}" for name, value in further.items())
    run_id = f"{axes['architecture']}-{axes['dataset']}-r{_written(axes['ratio'])}-s{axes['seed']}"
    run = Run(id=f"{run_id}-{variant}" if variant else run_id, **{name: axes[name] for name in AXES})
    training = Recipe.model_validate({**recipe.model_dump(), **further})
    return Cell(axes, RunSpec(run=run, training=training), variant)


def _written(value: Any) -> str:
    """Write a value so that it is the same for equal numbers and safe in a file name."""
    if isinstance(value, (list, tuple)):
        return "+".join(_written(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
