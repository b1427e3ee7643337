"""`sweep plan`: the study's 156 runs, their samples, pools and cost, without data, torch or Slurm."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY, Command
from result_fixtures import make_result, write_result

from sweep.cli.execute import amount
from sweep.config.load import load_sweep
from sweep.config.operations import START_S, estimate_s
from sweep.plan.cost import CostModel
from sweep.plan.record import planned_run
from sweep.plan.rows import make_plan
from sweep.status.look import survey
from sweep.words import hours

THESIS = REPOSITORY / "configs" / "thesis.yaml"
SAMPLES = {
    "cifar10": [500, 1000, 1500, 2500, 3750, 5000, 7500, 10_000, 12_500, 20_000, 30_000, 40_000, 50_000],
    "tinyimagenet": [1000, 2000, 3000, 5000, 7500, 10_000, 15_000, 20_000, 25_000, 40_000, 60_000, 80_000, 100_000],
}  # table 4.2 of the chapter


def test_the_study_is_156_runs_with_the_chapters_sample_counts(sweep: Command, tmp_path: Path) -> None:
    """12 combinations a ratio, 13 ratios, table 4.2's images, seed by seed its pool."""
    document = sweep.json("plan", THESIS)
    runs = document["runs"]
    assert (document["schema_version"], document["sweep"], len(runs)) == (1, "thesis", 156)
    keys = {"id", "architecture", "dataset", "ratio", "seed", "train_samples", "pool", "state", "estimate_s", "basis"}
    assert all(set(run) == keys for run in runs)
    assert len({run["id"] for run in runs}) == 156
    assert set(Counter(run["ratio"] for run in runs).values()) == {12}
    for dataset, samples in SAMPLES.items():
        found = {(run["ratio"], run["train_samples"]) for run in runs if run["dataset"] == dataset}
        assert [count for _, count in sorted(found)] == samples
    pools = {42: "v100-16gb", 43: "p100-12gb", 44: "v100-32gb"}
    assert all(run["pool"] == pools[run["seed"]] for run in runs)
    assert {run["state"] for run in runs} == {"planned"}
    assert "resnet18-cifar10-r0.075-s42" in {run["id"] for run in runs}
    assert not list(tmp_path.iterdir())  # looking writes nothing


def test_the_estimate_follows_the_arithmetic() -> None:
    """More images, larger images and slower hardware cost more; a run's cost is above its start alone."""
    sweep = load_sweep(THESIS)
    costs = {placed.id: estimate_s(placed) for placed in sweep.runs}
    assert costs["resnet18-cifar10-r1.0-s42"] > 3 * costs["resnet18-cifar10-r0.1-s42"]
    assert costs["resnet18-tinyimagenet-r0.1-s42"] > 3 * costs["resnet18-cifar10-r0.1-s42"]
    assert costs["resnet18-cifar10-r1.0-s43"] > costs["resnet18-cifar10-r1.0-s42"]  # P100 against V100
    assert min(costs.values()) > 10


@pytest.mark.slow
def test_the_plan_is_a_difference_with_what_is_on_disk(sweep: Command, tmp_path: Path) -> None:
    """A finished run is done, one of another recipe is stale, a damaged one is failed, the rest are new."""
    planned = [planned_run(placed) for placed in load_sweep(THESIS).runs]
    done, stale, damaged = planned[0], planned[1], planned[2]
    folder = tmp_path / "runs" / "thesis"
    write_result(folder, make_result(done))
    other = stale.training.model_copy(update={"dropout": 0.3})
    write_result(folder, make_result(stale.model_copy(update={"training": other, "training_hash": other.hash})))
    write_result(folder, make_result(damaged))
    result = folder / "runs" / damaged.run.id / "result.json"
    result.write_text(result.read_text().replace('"epochs": 180', '"epochs": 181'))
    states = {run["id"]: run["state"] for run in sweep.json("plan", THESIS)["runs"]}
    assert (states[done.run.id], states[stale.run.id], states[damaged.run.id]) == ("done", "stale", "failed")
    assert Counter(states.values()) == {"planned": 153, "done": 1, "stale": 1, "failed": 1}
    failure = sweep.json("status", THESIS, "--failed")["runs"]
    assert [run["id"] for run in failure] == [damaged.run.id]
    assert "damaged" in failure[0]["message"]


@pytest.mark.slow
def test_prepared_data_decides_the_sample_counts(sweep: Command, data: Path, tmp_path: Path) -> None:
    """Once a dataset is prepared, its own sizes count, not the official ones."""
    text = "name: s\ngrid:\n  architecture: [vit]\n  dataset: [cifar10]\n  ratio: [0.5]\n  seed: [1]\n"
    (tmp_path / "s.yaml").write_text(text)
    assert sweep.json("plan", "s.yaml")["runs"][0]["train_samples"] == 25_000
    assert sweep.json("plan", "s.yaml", "--data", data)["runs"][0]["train_samples"] == 40


@pytest.mark.parametrize("arguments", [["plan"], ["status"], ["plan", "--json"], ["status", "--json"]])
def test_every_look_has_one_line_a_run_or_one_document(sweep: Command, arguments: list[str]) -> None:
    """In a pipe: 156 lines, or one JSON document and nothing else on stdout."""
    answer = sweep(*arguments, THESIS)
    if "--json" in arguments:
        assert len(json.loads(answer.stdout)["runs"]) == 156
    else:
        assert len(answer.stdout.splitlines()) == 156
    assert answer.stderr == ""


def test_gpu_hours_count_every_gpu_of_a_run(tmp_path: Path) -> None:
    """On four GPUs a run is over sooner and keeps four busy: a device's time stays, but for three more starts a run."""
    rows = {}
    for gpus in (1, 4):
        file = tmp_path / "s.yaml"
        file.write_text(THESIS.read_text() + f"\nexecution: {{gpus_per_run: {gpus}}}\n")
        sweep = load_sweep(file, output=tmp_path / "out")
        rows[gpus] = make_plan(sweep, survey(sweep), CostModel())
    for one, four in zip(rows[1], rows[4], strict=True):
        assert four.estimate_s == pytest.approx(START_S + (one.estimate_s - START_S) / 4)
    in_all = sum(row.estimate_s for row in rows[1]) + 3 * START_S * len(rows[1])
    assert amount(rows[4]) == f"156 runs, about {hours(in_all)} of one device's time"


@pytest.mark.parametrize("name", ["a 0", 'a"=0"', "a'; echo foo", "ä日", "-a"])
@pytest.mark.slow
def test_awkward_folders_are_just_folders(sweep: Command, tmp_path: Path, name: str) -> None:
    """Spaces, quotes and shell characters in paths mean nothing."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(THESIS, folder / "study.yaml")
    document = sweep.json("status", f"./{name}/study.yaml", "--output", folder / "out")
    assert document["counts"] == {"planned": 156}
