"""Grids beyond the plain product: several, axes that go together, ranges, draws, rules that leave runs out."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.errors import InputError

FOUR: dict[str, Any] = {"architecture": ["resnet18"], "dataset": ["cifar10"], "ratio": [0.1], "seed": [1]}


def load(folder: Path, grid: Any, **more: Any) -> Sweep:
    path = folder / "study.yaml"
    path.write_text(json.dumps({"name": "study", "grid": grid, "data": str(folder / "data"), **more}))
    return load_sweep(path)


def ids(folder: Path, grid: Any, **more: Any) -> list[str]:
    """The runs' ids, without what they all share."""
    return [run.id.removeprefix("resnet18-cifar10-") for run in load(folder, grid, **more).runs]


def test_several_grids_come_one_after_another_each_with_axes_of_its_own(tmp_path: Path) -> None:
    """A run is called by the axes of its own grid; rules see its recipe's value on the others."""
    grids = [{**FOUR, "seed": [1, 2]}, {**FOUR, "ratio": [0.5], "learning_rate": [1e-3, 1e-4]}]
    assert ids(tmp_path, grids) == [
        *("r0.1-s1", "r0.1-s2"),
        *("r0.5-s1-learning_rate=0.001", "r0.5-s1-learning_rate=0.0001"),
    ]
    rules = [{"when": {"learning_rate": [1e-3, 3e-4]}, "pool": "v100-16gb"}, {"pool": "p100-12gb"}]
    placed = load(tmp_path, grids, cluster={"file": "narvi", "assign": rules}).runs
    assert [run.pool for run in placed] == [*["v100-16gb"] * 3, "p100-12gb"]
    assert [run.variant for run in placed] == ["", "", "learning_rate=0.001", "learning_rate=0.0001"]


def test_zipped_axes_go_together_in_the_place_of_the_first(tmp_path: Path) -> None:
    """One of the four among them too; a value may stand beside several."""
    grid = {**FOUR, "zip": {"learning_rate": [1e-3, 1e-4, 1e-4], "batch_size": [64, 128, 256]}}
    assert ids(tmp_path, grid) == [
        "r0.1-s1-learning_rate=0.001-batch_size=64",
        "r0.1-s1-learning_rate=0.0001-batch_size=128",
        "r0.1-s1-learning_rate=0.0001-batch_size=256",
    ]
    del grid["ratio"]
    grid |= {"seed": [1, 2], "zip": [{"ratio": [0.1, 0.5], "epochs": [10, 2]}, {"dropout": [0.0, 0.5]}]}
    with pytest.raises(InputError, match="'epochs' is an axis of the grid and a fixed value in 'training'"):
        load(tmp_path, grid, training={"epochs": 5})
    found = ids(tmp_path, grid, training={"lr_milestones": []})
    assert found[:4] == [
        *("r0.1-s1-epochs=10-dropout=0.0", "r0.1-s1-epochs=10-dropout=0.5"),
        *("r0.1-s2-epochs=10-dropout=0.0", "r0.1-s2-epochs=10-dropout=0.5"),
    ]
    assert len(found) == 8


@pytest.mark.parametrize(
    ("axis", "values", "expected"),
    [
        ("learning_rate", {"from": 1e-5, "to": 1e-2, "steps": 4, "scale": "log"}, [1e-5, 1e-4, 1e-3, 1e-2]),
        ("dropout", {"from": 0.1, "to": 0.3, "steps": 3}, [0.1, 0.2, 0.3]),
        ("batch_size", {"from": 32, "to": 256, "steps": 4, "scale": "log"}, [32, 64, 128, 256]),
        ("seed", {"from": 1, "to": 5, "steps": 5}, [1, 2, 3, 4, 5]),
    ],
)
def test_a_range_holds_both_ends_and_equal_steps_between(
    tmp_path: Path, axis: str, values: dict[str, Any], expected: list[Any]
) -> None:
    """Written in ids as their reader would; whole where the axis is."""
    runs = load(tmp_path, {**FOUR, axis: values}).runs
    found = [getattr(run.spec.run if axis in FOUR else run.spec.training, axis) for run in runs]
    assert found == expected
    assert all(type(value) is type(expected[0]) for value in found)


def drawn(folder: Path, count: int, seed: int = 0, **axes: Any) -> list[dict[str, Any]]:
    grid = {**FOUR, "random": {"count": count, "seed": seed, "axes": axes}}
    return [{axis: getattr(run.spec.training, axis) for axis in axes} for run in load(folder, grid).runs]


def test_draws_stay_what_they_are_when_more_are_wanted_or_an_axis_is_added(tmp_path: Path) -> None:
    rates = {"learning_rate": {"loguniform": [1e-5, 1e-2]}}
    few = drawn(tmp_path, 5, **rates)
    assert drawn(tmp_path, 20, **rates)[:5] == few
    more = drawn(tmp_path, 5, dropout={"uniform": [0, 0.5]}, **rates)
    assert [{"learning_rate": point["learning_rate"]} for point in more] == few
    assert drawn(tmp_path, 5, seed=1, **rates) != few


def test_draws_lie_where_they_are_wanted_and_cover_it(tmp_path: Path) -> None:
    """Log-uniform: as many below the geometric mean as above; whole numbers with both ends; choices all taken."""
    points = drawn(
        tmp_path,
        400,
        learning_rate={"loguniform": [1e-5, 1e-1]},
        dropout={"uniform": [0.1, 0.5]},
        batch_size={"int": [2, 9]},
        lr_milestones={"choice": [[50], [50, 75]]},
    )
    rates = [point["learning_rate"] for point in points]
    assert 1e-5 <= min(rates) < 2e-5
    assert max(rates) <= 1e-1
    assert 160 < sum(rate < 1e-3 for rate in rates) < 240  # four standard deviations
    assert all(0.1 <= point["dropout"] <= 0.5 for point in points)
    assert {point["batch_size"] for point in points} == set(range(2, 10))
    assert {point["lr_milestones"] for point in points} == {(50,), (50, 75)}


def test_rules_leave_runs_out(tmp_path: Path) -> None:
    """`only` keeps what a rule of it matches, `exclude` drops what one matches; ids stay the same."""
    grid = {**FOUR, "ratio": [0.1, 0.5, 1.0], "seed": [1, 2]}
    kept = ids(tmp_path, grid, exclude=[{"ratio": [0.5, 1.0], "seed": 2}])
    assert kept == ["r0.1-s1", "r0.1-s2", "r0.5-s1", "r1.0-s1"]
    assert ids(tmp_path, grid, only=[{"ratio": 0.1}, {"seed": 2, "ratio": 1.0}]) == ["r0.1-s1", "r0.1-s2", "r1.0-s2"]
    both = ids(tmp_path, grid, only=[{"seed": 1}], exclude=[{"ratio": 1.0}])
    assert both == ["r0.1-s1", "r0.5-s1"]


RATES = {"learning_rate": {"loguniform": [1e-5, 1e-2]}}
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no grid": ([], {}, "'grid' is []: expected axes with their values, or a list of such grids"),
    "a number": (3, {}, "'grid' is 3: expected axes with their values, or a list of such grids"),
    "one misses an axis": ([FOUR, {"ratio": [1]}], {}, "axis 'architecture' is missing in 'grid.1'"),
    "a run in two": ([FOUR, FOUR], {}, "run resnet18-cifar10-r0.1-s1 is in two grids; leave it out of one"),
    "unknown in zip": (
        {**FOUR, "zip": {"learn_rate": [1]}},
        {},
        "unknown axis 'learn_rate' in 'grid.zip'; did you mean",
    ),
    "zip of two lengths": (
        {**FOUR, "zip": {"learning_rate": [1e-3], "dropout": [0.1, 0.2]}},
        {},
        "'grid.zip' pairs values one by one, and has 1 of 'learning_rate', 2 of 'dropout'",
    ),
    "zip of a pair twice": (
        {**FOUR, "zip": {"learning_rate": [1e-3, 1e-3], "dropout": [0.1, 0.1]}},
        {},
        "'grid.zip' holds learning_rate 0.001, dropout 0.1 twice",
    ),
    "an axis in two places": ({**FOUR, "zip": {"seed": [1]}}, {}, "axis 'seed' has values in two places of 'grid'"),
    "zip of nothing": ({**FOUR, "zip": []}, {}, "'grid.zip' is []: expected axes, or a list of such parts"),
    "a range upside down": (
        {**FOUR, "dropout": {"from": 0.5, "to": 0.1, "steps": 3}},
        {},
        "'grid.dropout' goes from 0.5 to 0.1: expected the smaller one first",
    ),
    "a range of what is no number": (
        {**FOUR, "architecture": {"small": "mylab:net"}},
        {},
        "'grid.architecture' is {'small': 'mylab:net'}: expected a list with at least one value",
    ),
    "an end that is no number": (
        {**FOUR, "ratio": {"from": "a", "to": 1, "steps": 2}},
        {},
        "'grid.ratio.from' is 'a': input should be a valid number",
    ),
    "a log of zero": (
        {**FOUR, "dropout": {"from": 0, "to": 0.1, "steps": 3, "scale": "log"}},
        {},
        "'grid.dropout' begins at 0: a log scale needs numbers above 0",
    ),
    "a misspelt range": (
        {**FOUR, "dropout": {"from": 0, "to": 0.1, "step": 3}},
        {},
        "unknown key 'step' in 'grid.dropout'; did you mean 'steps'?",
    ),
    "a range too fine": (
        {**FOUR, "batch_size": {"from": 2, "to": 4, "steps": 9}},
        {},
        "'grid.batch_size' holds 2 twice",
    ),
    "a range beyond the axis": (
        {**FOUR, "ratio": {"from": 0.5, "to": 1.5, "steps": 2}},
        {},
        "'grid.ratio' holds 1.5: a ratio is above 0 and at most 1",
    ),
    "more draws than values": (
        {**FOUR, "random": {"count": 5, "axes": {"batch_size": {"int": [2, 4]}}}},
        {},
        "'grid.random' has 3 different points, and 'count' is 5; lower it, or give more values",
    ),
    "a draw of two kinds": (
        {**FOUR, "random": {"count": 5, "axes": {"dropout": {"uniform": [0, 1], "choice": [0.1]}}}},
        {},
        "'grid.random.axes.dropout' is drawn in 2 ways: expected one, such as 'uniform: [0, 1]'",
    ),
    "a draw upside down": (
        {**FOUR, "random": {"count": 5, "axes": {"learning_rate": {"loguniform": [0, 1]}}}},
        {},
        "'grid.random.axes.learning_rate.loguniform' is [0, 1]: expected two numbers above 0, the smaller first",
    ),
    "a draw beyond the axis": (
        {**FOUR, "random": {"count": 5, "axes": {"dropout": {"uniform": [1, 2]}}}},
        {},
        "'grid.random.axes.dropout' holds 1.",
    ),
    "draws without a count": ({**FOUR, "random": {"axes": RATES}}, {}, "'count' is missing in 'grid.random'"),
    "a rule of another axis": (FOUR, {"exclude": [{"sed": 1}]}, "'sed' is no axis of the grid; did you mean 'seed'?"),
    "a rule that matches nothing": (FOUR, {"only": [{"seed": 7}]}, "the rule {'seed': 7} in 'only' matches no run"),
    "a rule of nothing": (FOUR, {"exclude": [{}]}, "the rule {} in 'exclude' matches no run"),
    "all left out": (FOUR, {"exclude": [{"seed": 1}]}, "the rules leave no run of the grid"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_grid_is_one_sentence_with_its_line(tmp_path: Path, case: str) -> None:
    grid, more, words = WRONG[case]
    with pytest.raises(InputError) as error:
        load(tmp_path, grid, **more)
    assert words in str(error.value)
    assert "study.yaml:1: " in str(error.value)


def test_ten_thousand_draws_are_read_as_fast_as_a_product(tmp_path: Path) -> None:
    """Beside a product grid of as many runs, in CPU seconds."""
    seconds = []
    for grid in (
        {**FOUR, "learning_rate": [number / 1e5 for number in range(1, 101)], "seed": list(range(100))},
        {**FOUR, "random": {"count": 10_000, "axes": RATES}},
    ):
        began = time.process_time()
        assert len(load(tmp_path, grid).runs) == 10_000
        seconds.append(time.process_time() - began)
    assert seconds[1] < 3 * seconds[0]
