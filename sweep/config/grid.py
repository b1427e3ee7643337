"""From axes to runs: the product, the ids, each run's recipe. Pure."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sweep.config.explain import lowered, quoted
from sweep.config.yaml_file import Location, YamlFile
from sweep.words import nearest
from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES, is_reference, short_name
from trainer.records.recipe import Recipe
from trainer.records.run import Run, RunSpec

MAX_SEED = 2**32 - 1  # scikit-learn's random_state goes no further
AXES = ("architecture", "dataset", "ratio", "seed")


def expand(grid: Mapping[str, Sequence[Any]], recipe: Recipe) -> list[RunSpec]:
    """Expand the grid: every combination of its values, the last axis fastest.

    Axes beyond the four are fields of the recipe; they become part of the run's id. Raises pydantic's ValidationError
    when the recipe does not allow a value.
    """
    names = [*AXES, *further(grid)]
    products = itertools.product(*(grid[name] for name in names))
    return [_spec(dict(zip(names, values, strict=True)), recipe) for values in products]


def further(grid: Iterable[str]) -> list[str]:
    """The axes beyond the four."""
    return [name for name in grid if name not in AXES]


def axes_of(spec: RunSpec, grid: Iterable[str]) -> dict[str, Any]:
    """A run's value on each axis of its grid."""
    return {name: getattr(spec.run if name in AXES else spec.training, name) for name in grid}


def variant_of(axes: Mapping[str, Any]) -> str:
    """Name a run's place on the axes beyond the four, "" where there are none."""
    return "-".join(f"{name}={_written(axes[name])}" for name in further(axes))


def _spec(axes: dict[str, Any], recipe: Recipe) -> RunSpec:
    variant = variant_of(axes)
    run_id = f"{short_name(axes['architecture'])}-{axes['dataset']}-r{_written(axes['ratio'])}-s{axes['seed']}"
    run = Run(id=f"{run_id}-{variant}" if variant else run_id, **{name: axes[name] for name in AXES})
    training = Recipe.model_validate({**recipe.model_dump(), **{name: axes[name] for name in further(axes)}})
    return RunSpec(run=run, training=training)


def _written(value: Any) -> str:
    """Write a value so that it is the same for equal numbers and safe in a file name."""
    if isinstance(value, (list, tuple)):
        return "+".join(_written(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_grid(source: YamlFile, grid: dict[str, Any]) -> dict[str, list[Any]]:
    """Check the axes and their values; ratios become floats."""
    fields = list(Recipe.model_fields)
    for axis, values in grid.items():
        at: Location = ("grid", axis)
        if axis not in AXES and axis not in fields:
            raise source.error(at, f"unknown axis '{axis}' in 'grid'{nearest(axis, [*AXES, *fields])}")
        if not isinstance(values, list) or not values:
            raise source.error(at, f"'grid.{axis}' is {quoted(values)}: expected a list with at least one value")
    for axis in AXES:
        if axis not in grid:
            raise source.error(("grid",), f"axis '{axis}' is missing in 'grid'")
    checked: dict[str, list[Any]] = {}
    for axis, values in grid.items():
        checked[axis] = [_check_value(source, axis, index, value) for index, value in enumerate(values)]
        for index, value in enumerate(checked[axis]):
            if value in checked[axis][:index]:
                raise source.error(("grid", axis, index), f"'grid.{axis}' holds {quoted(value)} twice")
    _check_names(source, checked["architecture"])
    return checked


def _check_value(source: YamlFile, axis: str, index: int, value: Any) -> Any:
    at: Location = ("grid", axis, index)
    shown = f"'grid.{axis}' holds {quoted(value)}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match axis:
        case "architecture":
            if value not in ARCHITECTURES and not (isinstance(value, str) and is_reference(value)):
                known = f"expected {', '.join(ARCHITECTURES)}, or one of yours as 'module:function'"
                raise source.error(at, f"{shown}: no such architecture{nearest(str(value), ARCHITECTURES, known)}")
        case "dataset":
            if value not in DATASETS:
                raise source.error(at, f"{shown}: no such dataset{nearest(str(value), DATASETS)}")
        case "ratio":
            if not number or not 0 < value <= 1:
                raise source.error(at, f"{shown}: a ratio is above 0 and at most 1")
            return float(value)
        case "seed":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
                raise source.error(at, f"{shown}: a seed is a whole number from 0 to {MAX_SEED}")
        case _:
            try:
                return getattr(Recipe.model_validate({axis: value}), axis)
            except ValidationError as error:
                raise source.error(at, f"{shown}: {lowered(str(error.errors()[0]['msg']))}") from error
    return value


def _check_names(source: YamlFile, architectures: Sequence[str]) -> None:
    """Refuse two architectures whose runs would have the same ids."""
    called: dict[str, str] = {}
    for index, value in enumerate(architectures):
        name = short_name(value)
        other = called.setdefault(name, value)
        if other != value:
            words = f"'grid.architecture' holds '{other}' and '{value}', and run ids would call both '{name}'"
            raise source.error(("grid", "architecture", index), f"{words}; give one of them another name")


def expand_checked(source: YamlFile, grid: dict[str, list[Any]], recipe: Recipe) -> list[RunSpec]:
    for axis in grid:
        if axis not in AXES and axis in recipe.model_fields_set:
            raise source.error(("training", axis), f"'{axis}' is an axis of the grid and a fixed value in 'training'")
    try:
        return expand(grid, recipe)
    except ValidationError as error:
        raise source.error(("grid",), f"a combination of the grid: {error.errors()[0]['msg']}") from error
