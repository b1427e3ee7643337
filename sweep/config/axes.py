"""The values of an axis as the sweep file gives them: a list, a range, or random draws. Pure."""

import math
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from slurm.pools import Strict
from sweep.config.explain import lowered, quoted, validate_part
from sweep.config.yaml_file import Location, YamlFile
from sweep.words import nearest
from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES, is_reference
from trainer.records.recipe import Recipe

MAX_SEED = 2**32 - 1  # scikit-learn's random_state goes no further
AXES = ("architecture", "dataset", "ratio", "seed")
DIGITS = 6  # of a value that is computed: it becomes part of run ids
TRIES = 100  # draws for each one wanted; where values are few, they repeat

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Range(Strict):
    """`{from: 1e-5, to: 1e-2, steps: 7, scale: log}`: both ends and what lies between at equal steps."""

    start: Number = Field(alias="from")
    to: Number
    steps: Annotated[int, Field(strict=True, ge=2, le=10_000)]
    scale: Literal["linear", "log"] = "linear"


class Random(Strict):
    """`{count: 20, axes: {learning_rate: {loguniform: [1e-5, 1e-2]}}}`: so many points, drawn on all axes at once.

    More of them, or another axis, leave the values that were drawn before as they are.
    """

    count: Annotated[int, Field(strict=True, ge=1, le=100_000)]
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    axes: dict[str, dict[Literal["uniform", "loguniform", "int", "choice"], list[Any]]]


def check_values(source: YamlFile, at: Location, axis: str, given: Any) -> list[Any]:
    """The values of an axis, each checked; ratios become floats. Raises InputError for what is none or stands twice."""
    if isinstance(given, dict) and _is_number(axis):
        given = _range_values(source, at, validate_part(source, at, Range, given), whole=_is_whole(axis))
    if not isinstance(given, list) or not given:
        expected = "a list with at least one value" + (", or a range" if _is_number(axis) else "")
        words = f"'{shown(at)}' is {quoted(given)}: expected {expected}"
        raise source.error(at, words)
    checked = [check_value(source, (*at, index), axis, value) for index, value in enumerate(given)]
    seen: set[Any] = set()
    for index, value in enumerate(checked):
        if value in seen:
            raise source.error((*at, index), f"'{shown(at)}' holds {quoted(value)} twice")
        seen.add(value)
    return checked


def check_value(source: YamlFile, at: Location, axis: str, value: Any) -> Any:
    holds = f"'{shown(at[:-1] if isinstance(at[-1], int) else at)}' holds {quoted(value)}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    match axis:
        case "architecture":
            if value not in ARCHITECTURES and not (isinstance(value, str) and is_reference(value)):
                known = f"expected {', '.join(ARCHITECTURES)}, or one of yours as 'module:function'"
                raise source.error(at, f"{holds}: no such architecture{nearest(str(value), ARCHITECTURES, known)}")
        case "dataset":
            if value not in DATASETS:
                raise source.error(at, f"{holds}: no such dataset{nearest(str(value), DATASETS)}")
        case "ratio":
            if not number or not 0 < value <= 1:
                raise source.error(at, f"{holds}: a ratio is above 0 and at most 1")
            return float(value)
        case "seed":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
                raise source.error(at, f"{holds}: a seed is a whole number from 0 to {MAX_SEED}")
        case _:
            try:
                return getattr(Recipe.model_validate({axis: value}), axis)
            except ValidationError as error:
                raise source.error(at, f"{holds}: {lowered(str(error.errors()[0]['msg']))}") from error
    return value


def check_axis(source: YamlFile, at: Location, axis: str) -> None:
    fields = [*AXES, *Recipe.model_fields]
    if axis not in fields:
        raise source.error(at, f"unknown axis '{axis}' in '{shown(at[:-1])}'{nearest(axis, fields)}")


def draw_points(source: YamlFile, at: Location, given: Any) -> list[dict[str, Any]]:
    """The points of a `random` part, each with its value on every axis, no two alike."""
    part = validate_part(source, at, Random, given)
    if not part.axes:
        raise source.error(at, f"'{shown(at)}.axes' names no axis")
    for axis, draw in part.axes.items():
        here = (*at, "axes", axis)
        check_axis(source, here, axis)
        _check_draw(source, here, axis, draw)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in _draws(part):
        found.setdefault(tuple(point.values()), point)
        if len(found) == part.count:
            break
    else:
        words = f"'{shown(at)}' has {len(found)} different points, and 'count' is {part.count}"
        raise source.error((*at, "count"), f"{words}; lower it, or give more values")
    points = list(found.values())
    for point in points:
        for axis, value in point.items():
            point[axis] = check_value(source, (*at, "axes", axis), axis, value)
    return points


def _draws(part: Random) -> Iterator[dict[str, Any]]:
    for number in range(TRIES * part.count):
        yield {
            axis: _drawn(random.Random(f"{part.seed}/{axis}/{number}"), kind, values, whole=_is_whole(axis))
            for axis, draw in part.axes.items()
            for kind, values in draw.items()
        }


def _drawn(generator: random.Random, kind: str, values: list[Any], *, whole: bool) -> Any:
    match kind:
        case "choice":
            return values[int(generator.random() * len(values))]
        case "int":
            return values[0] + int(generator.random() * (values[1] - values[0] + 1))
        case "loguniform":
            low, high = math.log(values[0]), math.log(values[1])
            return _rounded(math.exp(low + generator.random() * (high - low)), whole=whole)
        case _:
            return _rounded(values[0] + generator.random() * (values[1] - values[0]), whole=whole)


def _check_draw(source: YamlFile, at: Location, axis: str, draw: dict[str, list[Any]]) -> None:
    if len(draw) != 1:
        raise source.error(at, f"'{shown(at)}' is drawn in {len(draw)} ways: expected one, such as 'uniform: [0, 1]'")
    [(kind, values)] = draw.items()
    if kind == "choice":
        draw[kind][:] = check_values(source, (*at, kind), axis, values)
        return
    kinds = (int,) if kind == "int" else (int, float)
    fit = len(values) == 2 and all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)
    if not fit or values[0] >= values[1] or (kind == "loguniform" and values[0] <= 0):
        what = {"int": "two whole numbers", "loguniform": "two numbers above 0"}.get(kind, "two numbers")
        raise source.error(at, f"'{shown(at)}.{kind}' is {values}: expected {what}, the smaller first")


def _range_values(source: YamlFile, at: Location, part: Range, *, whole: bool) -> list[Any]:
    if part.start >= part.to:
        words = f"'{shown(at)}' goes from {part.start:g} to {part.to:g}: expected the smaller one first"
        raise source.error(at, words)
    if part.scale == "log" and part.start <= 0:
        words = f"'{shown(at)}' begins at {part.start:g}: a log scale needs numbers above 0"
        raise source.error(at, words)
    share = [step / (part.steps - 1) for step in range(part.steps)]
    if part.scale == "log":
        values = [part.start ** (1 - one) * part.to**one for one in share]
    else:
        values = [part.start + one * (part.to - part.start) for one in share]
    return [_rounded(value, whole=whole) for value in values]


def _rounded(value: float, *, whole: bool) -> int | float:
    return round(value) if whole else float(f"{value:.{DIGITS}g}")


def _is_number(axis: str) -> bool:
    """Whether an axis takes numbers."""
    default = getattr(Recipe(), axis, None)
    return axis == "ratio" or _is_whole(axis) or isinstance(default, float)


def _is_whole(axis: str) -> bool:
    """Whether an axis takes whole numbers."""
    default = getattr(Recipe(), axis, None)
    return axis == "seed" or (isinstance(default, int) and not isinstance(default, bool))


def shown(at: Location) -> str:
    """A place in the file as its reader would write it: "grid.ratio", "grid.0.zip.seed"."""
    return ".".join(str(part) for part in at)
