"""`--where` means the same on every command that takes runs."""

import json
from pathlib import Path

import pytest
from conftest import Command
from upkeep_fixtures import Study, study

from sweep.cli.where import narrowed
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.errors import InputError

__all__ = ["study"]


@pytest.fixture
def grid(tmp_path: Path) -> Sweep:
    path = tmp_path / "study.yaml"
    axes = {
        "architecture": ["resnet18", "torchvision:resnet34"],
        "dataset": ["cifar10"],
        "ratio": [0.1, 1.0],
        "seed": [1, 2, 3],
        "learning_rate": [1e-4, 3e-4],
    }
    path.write_text(json.dumps({"name": "study", "grid": axes, "data": str(tmp_path)}))
    return load_sweep(path)


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ([], 24),
        (["seed=1"], 8),
        (["seed=1,3"], 16),
        (["seed=1", "ratio=1"], 4),
        (["seed=1", "seed=2"], 0),
        (["learning_rate=1e-4"], 12),
        (["learning_rate=0.00010"], 12),
        (["architecture=resnet34"], 12),
        (["architecture=torchvision:resnet34"], 12),
        (["epochs=180"], 24),
        (["augmentation=true"], 24),
    ],
)
def test_conditions_hold_together_and_a_list_is_any_of_it(grid: Sweep, conditions: list[str], count: int) -> None:
    """Of axes, and of whatever the recipe says; numbers however they are written."""
    assert len(narrowed(grid, conditions)(grid.runs)) == count


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("seed", "--where seed: expected AXIS=VALUE[,VALUE]"),
        ("sed=1", "--where sed=1: unknown axis 'sed'; did you mean 'seed'?"),
        ("seed=7", "--where seed=7: no run has seed '7'; expected one of: 1, 2, 3"),
        ("architecture=resnet43", "no run has architecture 'resnet43'; did you mean 'resnet34'?"),
        ("ratio=", "no run has ratio ''; expected one of: 0.1, 1.0"),
    ],
)
def test_what_no_run_can_meet_is_refused_with_what_there_is(grid: Sweep, condition: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        narrowed(grid, [condition])
    assert words in str(error.value)


def test_every_command_takes_the_same_runs(study: Study, sweep: Command) -> None:
    """Of four runs one is done, interrupted, failed, cancelled; seed 43 are two of them."""
    one = ("--where", "seed=43")
    shown = sweep.json("status", study.file, *one)
    ids = [run["id"] for run in shown["runs"]]
    assert len(ids) == 2
    assert all(run_id.endswith("-s43") for run_id in ids)
    assert sum(shown["counts"].values()) == 2
    assert [run["id"] for run in sweep.json("plan", study.file, *one)["runs"]] == ids
    states = {run["state"] for run in shown["runs"]}
    assert states == {"interrupted", "cancelled"}
    everything = sweep("retry", study.file, "--failed", "--dry-run", expect=2).stderr
    assert "not prepared" in everything
    assert "would cancel 1 runs (1 interrupted)" in sweep("cancel", study.file, "--dry-run", *one).stderr
    done = next(run for run in sweep.json("status", study.file)["runs"] if run["state"] == "done")
    left = sweep(
        "submit", study.file, "--dry-run", "--where", f"seed={done['seed']}", "--where", f"ratio={done['ratio']}"
    )
    assert "nothing to submit: 1 done" in left.stderr
    assert "unknown axis 'sede'" in sweep("retry", study.file, "--where", "sede=1", expect=2).stderr
