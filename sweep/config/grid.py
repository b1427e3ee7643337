"""From axes to runs: sub-grids and their products, the ids, each run's recipe. Pure."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from sweep.config.axes import AXES, check_axis, check_values, draw_points, shown
from sweep.config.explain import quoted
from sweep.config.yaml_file import Location, YamlFile
from sweep.words import nearest
from trainer.models.catalog import short_name
from trainer.records.recipe import Recipe
from trainer.records.run import Run, RunSpec

Group = list[dict[str, Any]]  # axes that go together: one value of each at a time


class SubGrid(NamedTuple):
    """A grid, or one of several: every combination of its groups is a run. names: its axes, the last the fastest."""

    names: tuple[str, ...]
    groups: list[Group]


class Cell(NamedTuple):
    """A run and its value on each axis of its grid."""

    spec: RunSpec
    axes: dict[str, Any]

    @property
    def variant(self) -> str:
        """Its place on the axes beyond the four, "" where there are none."""
        return variant_of(self.axes)


def read_grids(source: YamlFile, given: Any) -> list[SubGrid]:
    """Check a sweep file's grid: axes with their values, or a list of such grids, whose runs come one after another."""
    if isinstance(given, dict):
        grids = [_read_grid(source, ("grid",), given)]
    elif isinstance(given, list) and given and all(isinstance(one, dict) for one in given):
        grids = [_read_grid(source, ("grid", index), one) for index, one in enumerate(given)]
    else:
        words = f"'grid' is {quoted(given)}: expected axes with their values, or a list of such grids"
        raise source.error(("grid",), words)
    _check_names(source, grids)
    return grids


def axis_names(grids: Sequence[SubGrid]) -> list[str]:
    """The axes of all the grids."""
    return list(dict.fromkeys(name for grid in grids for name in grid.names))


def values_on(grids: Sequence[SubGrid], axis: str) -> list[Any]:
    """The values of an axis in all the grids, in their order."""
    found: list[Any] = []
    for value in (point[axis] for grid in grids for group in grid.groups for point in group if axis in point):
        if value not in found:
            found.append(value)
    return found


def expand(grids: Sequence[SubGrid], recipe: Recipe) -> list[Cell]:
    """Expand the grids: of each, every combination of its groups, the last axis fastest.

    Axes beyond the four are fields of the recipe; they become part of the run's id. Raises pydantic's ValidationError
    when the recipe does not allow a value.
    """
    cells = []
    for grid in grids:
        for points in itertools.product(*grid.groups):
            merged = {name: value for point in points for name, value in point.items()}
            cells.append(_cell({name: merged[name] for name in grid.names}, recipe))
    return cells


def axes_of(spec: RunSpec, names: Iterable[str]) -> dict[str, Any]:
    """A run's value on each of these axes, be they its grid's or fields of its recipe."""
    return {name: getattr(spec.run if name in AXES else spec.training, name) for name in names}


def variant_of(axes: Mapping[str, Any]) -> str:
    """Name a run's place on the axes beyond the four, "" where there are none."""
    return "-".join(f"{name}={written(value)}" for name, value in axes.items() if name not in AXES)


def _cell(axes: dict[str, Any], recipe: Recipe) -> Cell:
    variant = variant_of(axes)
    run_id = f"{short_name(axes['architecture'])}-{axes['dataset']}-r{written(axes['ratio'])}-s{axes['seed']}"
    run = Run(id=f"{run_id}-{variant}" if variant else run_id, **{name: axes[name] for name in AXES})
    fields = {name: value for name, value in axes.items() if name not in AXES}
    training = Recipe.model_validate({**recipe.model_dump(), **fields})
    return Cell(RunSpec(run=run, training=training), axes)


def written(value: Any) -> str:
    """Write a value so that it is the same for equal numbers and safe in a file name."""
    if isinstance(value, (list, tuple)):
        return "+".join(written(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_grid(source: YamlFile, at: Location, given: dict[str, Any]) -> SubGrid:
    groups: list[Group] = []
    for axis, values in given.items():
        here = (*at, axis)
        if axis == "zip":
            groups += [_zipped(source, place, axes) for place, axes in _each(source, here, values)]
        elif axis == "random":
            groups += [draw_points(source, place, drawn) for place, drawn in _each(source, here, values)]
        else:
            check_axis(source, here, axis)
            groups.append([{axis: value} for value in check_values(source, here, axis, values)])
    named = [name for group in groups for name in group[0]]
    twice = next((name for index, name in enumerate(named) if name in named[:index]), None)
    if twice:
        raise source.error(at, f"axis '{twice}' has values in two places of '{shown(at)}'")
    for axis in AXES:
        if axis not in named:
            raise source.error(at, f"axis '{axis}' is missing in '{shown(at)}'")
    names = (*AXES, *(name for name in named if name not in AXES))
    groups.sort(key=lambda group: min(names.index(name) for name in group[0]))
    return SubGrid(names, groups)


def _each(source: YamlFile, at: Location, given: Any) -> list[tuple[Location, Any]]:
    """The parts of one kind: one, or a list of them."""
    parts = [(at, given)] if isinstance(given, dict) else []
    if isinstance(given, list):
        parts = [((*at, index), one) for index, one in enumerate(given)]
    if not parts or not all(isinstance(one, dict) and one for _, one in parts):
        raise source.error(at, f"'{shown(at)}' is {quoted(given)}: expected axes, or a list of such parts")
    return parts


def _zipped(source: YamlFile, at: Location, axes: dict[str, Any]) -> Group:
    """Axes whose values go together, the first of one with the first of the other."""
    values = {}
    for axis, given in axes.items():
        check_axis(source, (*at, axis), axis)
        if not isinstance(given, list) or not given:
            words = f"'{shown((*at, axis))}' is {quoted(given)}: expected a list with at least one value"
            raise source.error((*at, axis), words)
        # One by one, for a value may stand twice beside different values of the other axes.
        values[axis] = [check_values(source, (*at, axis), axis, [value])[0] for value in given]
    counts = {axis: len(found) for axis, found in values.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of '{axis}'" for axis, count in counts.items())
        raise source.error(at, f"'{shown(at)}' pairs values one by one, and has {told}")
    points = [dict(zip(values, one, strict=True)) for one in zip(*values.values(), strict=True)]
    seen: set[tuple[Any, ...]] = set()
    for point in points:
        if tuple(point.values()) in seen:
            told = ", ".join(f"{axis} {value}" for axis, value in point.items())
            raise source.error(at, f"'{shown(at)}' holds {told} twice")
        seen.add(tuple(point.values()))
    return points


def _check_names(source: YamlFile, grids: Sequence[SubGrid]) -> None:
    """Refuse two architectures whose runs would have the same ids."""
    called: dict[str, str] = {}
    for value in values_on(grids, "architecture"):
        other = called.setdefault(short_name(value), value)
        if other != value:
            name = short_name(value)
            words = f"'grid.architecture' holds '{other}' and '{value}', and run ids would call both '{name}'"
            raise source.error(place_of(source, "architecture", value), f"{words}; give one of them another name")


def place_of(source: YamlFile, axis: str, value: Any) -> Location:
    """Where a value of an axis stands in the file; the grid where it is computed."""

    def search(at: Location, data: Any) -> Location | None:
        items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
        for key, inner in items:
            if key == axis and isinstance(inner, list) and value in inner:
                return (*at, key, inner.index(value))
            found = search((*at, key), inner)
            if found:
                return found
        return None

    return search(("grid",), source.data["grid"]) or ("grid",)


def expand_checked(
    source: YamlFile,
    grids: Sequence[SubGrid],
    recipe: Recipe,
    exclude: Sequence[dict[str, Any]] = (),
    only: Sequence[dict[str, Any]] = (),
) -> list[Cell]:
    """Expand the grids, without the runs that a rule of `exclude` matches or that none of `only` does.

    A rule gives axes with a value or a list of them. Raises InputError for a combination that the recipe does not
    allow, for a run that comes twice, and for a rule that matches nothing or leaves nothing.
    """
    for grid in grids:
        for axis in grid.names:
            if axis not in AXES and axis in recipe.model_fields_set:
                raise source.error(
                    ("training", axis), f"'{axis}' is an axis of the grid and a fixed value in 'training'"
                )
    try:
        cells = expand(grids, recipe)
    except ValidationError as error:
        raise source.error(("grid",), f"a combination of the grid: {error.errors()[0]['msg']}") from error
    seen: set[str] = set()
    for cell in cells:
        if cell.spec.run.id in seen:
            raise source.error(("grid",), f"run {cell.spec.run.id} is in two grids; leave it out of one")
        seen.add(cell.spec.run.id)
    for key, rules in (("exclude", exclude), ("only", only)):
        matched = [_matching(source, (key, index), rule, cells) for index, rule in enumerate(rules)]
        ids = {cell.spec.run.id for found in matched for cell in found}
        if rules:
            cells = [cell for cell in cells if (cell.spec.run.id in ids) == (key == "only")]
    if not cells:
        raise source.error(("exclude",) if exclude else ("only",), "the rules leave no run of the grid")
    return cells


def _matching(source: YamlFile, at: Location, rule: dict[str, Any], cells: Sequence[Cell]) -> list[Cell]:
    """The cells that a rule matches."""
    names = list(dict.fromkeys(name for cell in cells for name in cell.axes))
    for axis in rule:
        if axis not in names:
            raise source.error((*at, axis), f"'{axis}' is no axis of the grid{nearest(axis, names)}")
    found = [cell for cell in cells if matches(rule, cell.axes)]
    if not found or not rule:
        raise source.error(at, f"the rule {rule} in '{at[0]}' matches no run")
    return found


def matches(rule: Mapping[str, Any], axes: Mapping[str, Any]) -> bool:
    """Whether a cell is on the axes of a rule and has its values there: one, or any of a list."""
    return all(
        axis in axes and (axes[axis] in value if isinstance(value, list) else axes[axis] == value)
        for axis, value in rule.items()
    )
