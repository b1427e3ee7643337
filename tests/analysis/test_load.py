"""Results as a DataFrame: one row a finished run, nothing dropped in silence."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from result_fixtures import HARDWARE, make_result, planned_grid, planned_run, read_study, write_result

import analysis
from analysis.errors import AnalysisError
from analysis.load import COLUMNS, HISTORY_COLUMNS
from trainer.records.files import to_json
from trainer.records.recipe import Recipe

SHORT = Recipe(epochs=4)


def test_a_row_holds_what_its_result_says(tmp_path: Path) -> None:
    """Identity, best values with their epochs, sizes, times and hardware of a run come out as they went in."""
    run = planned_run("vit", "tinyimagenet", 0.075, 4, variant="dropout=0.1-s4", training=SHORT)
    hardware = HARDWARE[43].model_copy(update={"gpus": ["A", "B", "A"]})
    result = make_result(run, {"val_accuracy": (0.25, 3), "train_loss": (1.5, 0)}, hardware=hardware, attempts=2)
    write_result(tmp_path, result)
    frame = analysis.load(str(tmp_path))
    assert tuple(frame.columns) == COLUMNS
    assert frame.iloc[0].to_dict() == {
        "id": "vit-tinyimagenet-r0.075-s4-dropout=0.1-s4",
        "architecture": "vit",
        "dataset": "tinyimagenet",
        "ratio": 0.075,
        "seed": 4,
        "variant": "dropout=0.1-s4",
        "train_samples": 7_500,
        "val_samples": 10_000,
        "classes": 200,
        "parameters": 3_280_840,
        "training_hash": SHORT.hash,
        "data_fingerprint": "0" * 64,
        "train_loss": 1.5,
        "train_loss_epoch": 0,
        "train_accuracy": 0.96,
        "train_accuracy_epoch": 2,
        "val_loss": 0.66,
        "val_loss_epoch": 1,
        "val_accuracy": 0.25,
        "val_accuracy_epoch": 3,
        "train_seconds": 4.0,
        "evaluation_seconds": 2.0,
        "total_seconds": 300.0,
        "host": "p100-1",
        "cpu": "Intel(R) Xeon(R) CPU E5-2640 v4 @ 2.40GHz",
        "gpus": "2x A, 1x B",
        "pool": "p100",
        "device": "cuda",
        "precision": "fp32",
        "attempts": 2,
        "attempt": 2,
        "job": "18",
        "git_commit": "0123abc",
        "git_dirty": False,
        "torch": "2.7.1",
        "cuda": "12.6",
    }


def test_what_a_result_does_not_say_is_empty_in_its_row(tmp_path: Path) -> None:
    """No commit, no CUDA, no attempt: not a made-up value, and not an error."""
    result = make_result(planned_run(training=SHORT))
    environment = result.environment.model_copy(update={"git_commit": None, "git_dirty": None, "cuda": None})
    write_result(tmp_path, result.model_copy(update={"environment": environment, "attempts": []}))
    row = analysis.load(tmp_path).iloc[0]
    assert row[["git_commit", "git_dirty", "cuda", "attempt", "job"]].isna().all()
    assert row["attempts"] == 0


def test_the_history_has_a_row_a_run_and_epoch(tmp_path: Path) -> None:
    """Epochs rise within a run, runs are in the order of load(), and every number is the result's."""
    planned = planned_grid([("vit", "cifar10")], [1.0, 0.1], [43, 42], variant="dropout=0.1", training=SHORT)
    results = {run.run.id: make_result(run, {"val_loss": (0.5 + run.run.ratio, 3)}) for run in planned}
    for result in results.values():
        write_result(tmp_path, result)
    frame = analysis.load_history(str(tmp_path))
    assert tuple(frame.columns) == HISTORY_COLUMNS
    assert list(frame["id"]) == [run for run in analysis.load(tmp_path)["id"] for _ in range(SHORT.epochs)]
    assert list(frame["epoch"]) == list(range(SHORT.epochs)) * len(planned)
    for identity, of_run in frame.groupby("id"):
        result = results[identity]
        row = of_run.iloc[0]
        assert (row["architecture"], row["dataset"], row["variant"]) == ("vit", "cifar10", "dropout=0.1")
        assert (row["ratio"], row["seed"]) == (result.run.ratio, result.run.seed)
        for name in HISTORY_COLUMNS[7:]:
            assert list(of_run[name]) == getattr(result.history, name)


def test_every_finished_run_is_one_row_in_a_fixed_order(tmp_path: Path) -> None:
    """Runs without a result have no row; rows rise by ratio as a number, then seed; a CPU run has no GPUs."""
    planned = planned_grid([("vit", "cifar10")], [0.1, 0.075, 1.0], [43, 42], training=SHORT)
    laptop = HARDWARE[42].model_copy(update={"gpus": [], "device": "cpu"})
    for run in planned[:-1]:
        write_result(tmp_path, make_result(run, hardware=laptop))
    (tmp_path / "runs" / planned[-1].run.id).mkdir()
    frame = analysis.load(tmp_path)
    cells = list(zip(frame["ratio"], frame["seed"], strict=True))
    assert cells == [(0.075, 42), (0.075, 43), (0.1, 42), (0.1, 43), (1.0, 43)]
    assert set(frame["gpus"]) == {""}
    assert set(frame["variant"]) == {""}


def test_a_damaged_result_is_named_not_skipped(tmp_path: Path) -> None:
    """Loading refuses and names each damaged file, also one under another run's name."""
    planned = planned_grid([("vit", "cifar10")], [0.1, 1.0], [42, 43], training=SHORT)
    paths = [write_result(tmp_path, make_result(run)) for run in planned]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(AnalysisError) as caught:
        analysis.load(tmp_path)
    message = str(caught.value)
    assert "2 damaged result(s)" in message
    assert f"{planned[0].run.id}: result.json damaged: " in message
    assert f"{planned[1].run.id}: result.json is of another run: {planned[2].run.id}" in message

    with pytest.raises(AnalysisError, match=r"2 damaged result\(s\)"):
        analysis.load_history(tmp_path)
    study = read_study(tmp_path, planned, {})
    assert set(study.results) == {planned[2].run.id, planned[3].run.id}
    assert set(study.missing) == {planned[0].run.id, planned[1].run.id}


def test_a_folder_that_is_no_sweep_is_an_error_and_one_without_results_is_empty(tmp_path: Path) -> None:
    """A mistyped path does not look like a sweep without results, which has all columns and no row."""
    with pytest.raises(AnalysisError, match="no folder 'runs'"):
        analysis.load(tmp_path / "thesiss")
    (tmp_path / "runs").mkdir()
    frame = analysis.load(tmp_path)
    assert (len(frame), tuple(frame.columns)) == (0, COLUMNS)
    history = analysis.load_history(tmp_path)
    assert (len(history), tuple(history.columns)) == (0, HISTORY_COLUMNS)


def test_analysis_load_is_the_function_whatever_was_imported_first() -> None:
    """The module of the same name does not take its place."""
    code = (
        "from analysis.load import read_result; import analysis.load; import analysis; assert callable(analysis.load)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_thousand_results_load_in_a_few_times_what_reading_their_json_takes(tmp_path: Path) -> None:
    """1,000 results of 180 epochs are read, checked and made a frame (0.3 to 0.7 s measured on 2 CPU cores)."""
    run = planned_run()
    result = make_result(run)
    write_result(tmp_path, result)
    for seed in range(1_000, 1_999):
        name = run.run.id.replace("s42", f"s{seed}")
        folder = tmp_path / "runs" / name
        folder.mkdir()
        of_seed = run.run.model_copy(update={"id": name, "seed": seed})
        (folder / "result.json").write_bytes(to_json(result.model_copy(update={"run": of_seed})))
    started = time.perf_counter()
    for path in tmp_path.glob("runs/*/result.json"):
        json.loads(path.read_bytes())
    reading_s = time.perf_counter() - started
    started = time.perf_counter()
    frame = analysis.load(tmp_path)
    elapsed_s = time.perf_counter() - started
    print(f"1,000 results in {elapsed_s:.2f} s, their JSON alone in {reading_s:.2f} s")
    assert frame["seed"].nunique() == 1_000
    assert elapsed_s < 30 * reading_s
