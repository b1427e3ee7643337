"""The tables from result files: their shape and numbers, what they say of missing runs, which files there are."""

import csv
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PLACES, REPOSITORY
from result_fixtures import (
    HARDWARE,
    PAIRS,
    RATIOS,
    make_result,
    planned_grid,
    planned_run,
    read_study,
    write_grid,
    write_planned,
    write_result,
)
from table_reading import cells, read_markdown

from analysis.errors import AnalysisError
from analysis.mixed import MixedError, refuse_mixed
from analysis.study import Study
from analysis.tables import build_tables
from trainer.records.recipe import Recipe
from trainer.records.result import Metric, Stretch

SHORT = Recipe(epochs=4)
PAIR = PAIRS[:1]


def test_a_small_table_is_printed_exactly_so(tmp_path: Path) -> None:
    """Two decimals, no negative zero, ratios rising, a missing run as in the thesis, an unplanned one empty."""
    planned = [planned_run(ratio=ratio, seed=seed, training=SHORT) for ratio in (1.0, 0.075) for seed in (7, 5)][:-1]
    best: dict[Metric, tuple[float, int]] = {
        "val_accuracy": (0.426, 2),
        "val_loss": (-0.001, 0),
        "train_accuracy": (1.0, 3),
        "train_loss": (12.345678, 1),
    }
    write_result(tmp_path, make_result(planned[0], best))
    write_result(tmp_path, make_result(planned[2], best))
    write_planned(tmp_path, planned, {"resnet18-cifar10-r1.0-s5": "not finished: epoch 1 of 4"})
    assert (tmp_path / "tables" / "table-4.5.md").read_text() == (
        """\
| Metric / Dataset Ratio  | 0.075 |   1.0 |
| ----------------------- | ----: | ----: |
| Val Acc (S5)            |       |  -inf |
| Val Acc (S7)            |  0.43 |  0.43 |
| Epoch (Val Acc) (S5)    |       |   nan |
| Epoch (Val Acc) (S7)    |     2 |     2 |
| Val Loss (S5)           |       |   inf |
| Val Loss (S7)           |  0.00 |  0.00 |
| Epoch (Val Loss) (S5)   |       |   nan |
| Epoch (Val Loss) (S7)   |     0 |     0 |
| Train Acc (S5)          |       |  -inf |
| Train Acc (S7)          |  1.00 |  1.00 |
| Epoch (Train Acc) (S5)  |       |   nan |
| Epoch (Train Acc) (S7)  |     3 |     3 |
| Train Loss (S5)         |       |   inf |
| Train Loss (S7)         | 12.35 | 12.35 |
| Epoch (Train Loss) (S5) |       |   nan |
| Epoch (Train Loss) (S7) |     1 |     1 |

Table 4.5. Best training and validation metrics for different subset ratios of the CIFAR-10 dataset with ResNet-18, """
        """evaluated across multiple random seeds, along with the epoch at which the best metrics were recorded.

Missing: resnet18-cifar10-r1.0-s5 (not finished: epoch 1 of 4).
"""
    )


def test_table_4_2_counts_the_samples_of_the_chapter(tmp_path: Path) -> None:
    """Every number of table 4.2, from the results; from the plan, and said so, where no run has finished."""
    planned = planned_grid(training=SHORT)
    unfinished = {run.run.id: "not submitted" for run in planned if run.run.ratio == 0.6}
    write_grid(tmp_path, planned, *unfinished)
    write_planned(tmp_path, planned, unfinished)
    tiny = "1,000 2,000 3,000 5,000 7,500 10,000 15,000 20,000 25,000 40,000 60,000 80,000 100,000"
    cifar = "500 1,000 1,500 2,500 3,750 5,000 7,500 10,000 12,500 20,000 30,000 40,000 50,000"
    header, *rows = cells(tmp_path / "tables" / "table-4.2.csv")
    assert header == ["Sampleset / Ratio", *map(str, RATIOS)]
    assert [" ".join(row) for row in rows] == [
        f"Training Samples (TinyImageNet) {tiny}",
        f"Training Samples (CIFAR-10) {cifar}",
    ]
    text = (tmp_path / "tables" / "table-4.2.md").read_text()
    assert "From the plan, as no finished run tells: TinyImageNet at 0.6, CIFAR-10 at 0.6." in text


def test_samples_and_parameters_are_those_of_the_results(tmp_path: Path) -> None:
    """What was trained on and counted is printed, not what was planned, and a disagreement shows."""
    planned = planned_grid(PAIR, [0.1], [42, 43], training=SHORT)
    write_result(tmp_path, make_result(planned[0], train_samples=64, parameters=1_000))
    write_result(tmp_path, make_result(planned[1], train_samples=64, parameters=2_000))
    write_planned(tmp_path, planned, {})
    assert cells(tmp_path / "tables" / "table-4.2.csv")[1][1:] == ["64"]
    assert cells(tmp_path / "tables" / "table-4.1.csv")[1:] == [["CIFAR-10", "1,000 / 2,000"]]


def test_an_unknown_number_of_parameters_is_nan_and_explained(tmp_path: Path) -> None:
    """A pair without a result prints nan in table 4.1, runs and reason stand below; an unplanned pair is empty."""
    planned = planned_grid([PAIRS[0], PAIRS[3]], [0.1], [42], training=SHORT)
    write_grid(tmp_path, planned[1:])
    write_planned(tmp_path, planned, {planned[0].run.id: "cancelled"})
    header, cifar, tiny = cells(tmp_path / "tables" / "table-4.1.csv")
    assert header == ["Dataset", "ViT Parameters", "ResNet-18 Parameters"]
    assert (cifar, tiny) == (["CIFAR-10", "", "nan"], ["TinyImageNet", "3,280,840", ""])
    assert "Missing: resnet18-cifar10-r0.1-s42 (cancelled)." in (tmp_path / "tables" / "table-4.1.md").read_text()


def test_missing_damaged_and_stale_runs_are_named_and_leave_the_rest_alone(tmp_path: Path) -> None:
    """Each is under its table with its reason, its cells read -inf, inf, nan; every other cell stays as it was."""
    planned = planned_grid(PAIRS[:2], [0.02, 0.5, 1.0], training=SHORT)
    write_grid(tmp_path, planned)
    write_planned(tmp_path, planned, {})
    whole = cells(tmp_path / "tables" / "table-4.5.csv")
    other = {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("table-4.6.*")}

    truncated, gone, foreign, stale = (
        f"resnet18-cifar10-{cell}" for cell in ("r0.02-s42", "r0.5-s43", "r1.0-s44", "r0.02-s44")
    )
    path = tmp_path / "runs" / truncated / "result.json"
    path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "runs" / gone / "result.json").unlink()
    shutil.copy(tmp_path / "runs" / "vit-cifar10-r1.0-s44" / "result.json", tmp_path / "runs" / foreign)
    write_planned(tmp_path, planned, {stale: "stale: trained with another recipe", "not-in-the-plan": "no matter"})

    holes = {("S42", "0.02"), ("S43", "0.5"), ("S44", "1.0"), ("S44", "0.02")}
    now = cells(tmp_path / "tables" / "table-4.5.csv")
    assert now[0] == whole[0]
    for row, full in zip(now[1:], whole[1:], strict=True):
        absent = "nan" if row[0].startswith("Epoch") else "-inf" if "Acc" in row[0] else "inf"
        assert row == [
            absent if (row[0][-4:-1], ratio) in holes else cell for ratio, cell in zip(now[0], full, strict=True)
        ]
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("table-4.6.*")} == other
    note = read_markdown((tmp_path / "tables" / "table-4.5.md").read_text())[1][1]
    assert f"{truncated} (result.json damaged: its checksum does not match" in note
    assert f"{gone} (no result.json)" in note
    assert f"{foreign} (result.json is of another run: vit-cifar10-r1.0-s44" in note
    assert f"{stale} (stale: trained with another recipe)" in note
    assert "no matter" not in note
    assert str(tmp_path) not in note


def test_a_tampered_best_value_counts_as_damaged(tmp_path: Path) -> None:
    """A best value that its own history contradicts is not printed, nor one that was changed later."""
    planned = planned_grid(PAIR, [0.02], [42], training=SHORT)
    path = write_result(tmp_path, make_result(planned[0]))
    tampered = path.read_text().replace('"value": 0.81', '"value": 0.99')
    for content, reason in (
        (tampered, "its checksum does not match, so it is not as it was written"),
        ("{" + tampered.split("\n", 2)[2], "best is not the best of history"),
    ):
        path.write_text(content)
        write_planned(tmp_path, planned, {})
        text = (tmp_path / "tables" / "table-4.5.md").read_text()
        assert "0.99" not in text
        assert f"(result.json damaged: {reason})" in text


def test_equal_reasons_are_grouped_and_very_many_runs_are_counted(tmp_path: Path) -> None:
    """A reason is written once for all its runs, on one line, cut when long; beyond forty names comes a number."""
    planned = planned_grid(PAIR, [0.1], range(100), training=SHORT)
    missing = {run.run.id: f"exception:\n  {'x' * 500}" for run in planned}
    write_planned(tmp_path, planned, missing)
    note = read_markdown((tmp_path / "tables" / "table-4.5.md").read_text())[1][1]
    assert note.count("exception: xxx") == 1
    assert note.count("resnet18-cifar10-") == 40
    assert " and 60 more (exception: " in note
    assert note.endswith("xxx...).")
    assert len(note) < 40 * 30 + 300


def test_the_same_input_gives_the_same_bytes_and_no_leftovers(tmp_path: Path) -> None:
    """A second call changes no byte; after the plan shrank, our old files are gone and the user's own are kept."""
    planned = planned_grid(training=SHORT, ratios=RATIOS[:2])
    write_grid(tmp_path, planned)
    paths = write_planned(tmp_path, planned, {})
    stems = [f"table-4.{number}" for number in range(1, 5)]
    stems += [f"table-4.{number}{kind}" for number in range(5, 9) for kind in ("", "-mean")]
    files = [f"{stem}.{ending}" for stem in stems for ending in ("csv", "md", "tex")]
    assert [path.name for path in paths] == [*files, "summary.csv", "provenance.csv"]
    before = {path: path.read_bytes() for path in paths}
    assert write_planned(tmp_path, planned, {}) == paths
    assert {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()} == before

    own = [tmp_path / "tables" / name for name in ("table-4.5-mine.tex", "notes.md", "table-4.5.pdf")]
    old = [tmp_path / "tables" / f"table-4.5{kind}-learning_rate=0.1.csv" for kind in ("", "-mean")]
    for path in (*own, *old):
        path.write_text("mine")
    fewer = write_planned(tmp_path, [run for run in planned if run.run.dataset == "cifar10"], {})
    assert {path.name for path in fewer} == {path.name for path in paths if path.name[6:9] not in ("4.7", "4.8")}
    assert set((tmp_path / "tables").iterdir()) == {*fewer, *own}


def test_table_4_4_lists_all_hardware_of_a_seed(tmp_path: Path) -> None:
    """Different machines of a seed have a row each, a run on a CPU says so, a seed without a result is explained."""
    planned = planned_grid(PAIR, [0.1, 0.2, 1.0], training=SHORT)
    laptop = HARDWARE[43].model_copy(update={"cpu": "M1", "gpus": [], "device": "cpu"})
    mixed = HARDWARE[43].model_copy(update={"gpus": ["H100", "H200", "H100"]})
    for run in planned:
        if run.run.seed == 42 and run.run.ratio < 1:
            write_result(tmp_path, make_result(run))
        elif run.run.seed == 43:
            write_result(tmp_path, make_result(run, hardware=laptop if run.run.ratio == 0.1 else mixed))
    write_planned(tmp_path, planned, {run.run.id: "cancelled" for run in planned if run.run.seed == 44})
    e5 = "Intel(R) Xeon(R) CPU E5-2640 v4 @ 2.40GHz"
    assert cells(tmp_path / "tables" / "table-4.4.csv") == [
        ["Seed", "CPU", "GPU"],
        ["42", "Intel(R) Xeon(R) Silver 4214 CPU @ 2.20GHz", "4x Tesla V100-PCIE-16GB"],
        ["43", e5, "2x H100, 1x H200"],
        ["43", "M1", "none (CPU only)"],
        ["44", "nan", "nan"],
    ]
    assert read_markdown((tmp_path / "tables" / "table-4.4.md").read_text())[1][1:] == [
        f"Seed 43 ran on different hardware: 2 on {e5} with 2x H100, 1x H200, 1 on M1 with none (CPU only).",
        f"Missing: {', '.join(f'resnet18-cifar10-r{ratio}-s44' for ratio in (0.1, 0.2, 1.0))} (cancelled).",
        "Known so far: seed 42 from 2 of 3 runs; the tables from 4.5 on name the others and say why.",
    ]


def test_own_architectures_and_datasets_are_numbered_on_from_4_9(tmp_path: Path) -> None:
    """What the chapter does not know comes in plan order after 4.8, under its own name; known pairs stay."""
    pairs = [("mlp", "cifar10"), ("vit", "cifar10"), ("mlp", "birds")]
    planned = planned_grid(pairs, [0.00001, 1.0], [42], training=SHORT)
    write_grid(tmp_path, planned)
    paths = write_planned(tmp_path, planned, {})
    stems = [path.stem for path in paths if path.suffix == ".md" and "mean" not in path.name]
    assert stems == [f"table-4.{number}" for number in (1, 2, 3, 4, 6, 9, 10)]
    tables = tmp_path / "tables"
    assert cells(tables / "table-4.1.csv")[0] == ["Dataset", "ViT Parameters", "mlp Parameters"]
    assert cells(tables / "table-4.3.csv")[2] == ["birds", "nan", "nan"]
    assert "Not in the catalogue of datasets: birds." in (tables / "table-4.3.md").read_text()
    assert cells(tables / "table-4.10.csv")[0] == ["Metric / Dataset Ratio", "0.00001", "1.0"]
    caption = "of the birds dataset with mlp, evaluated with one random seed, along"
    assert caption in (tables / "table-4.10.md").read_text()


def test_each_variant_has_its_own_table(tmp_path: Path) -> None:
    """An axis beyond the four gives a table a value, named in file, caption and label; 4.1-4.4 stay one each."""
    variants = ("learning_rate=0.0001", "learning_rate=0.001")
    planned = [
        run
        for variant, rate in zip(variants, (0.0001, 0.001), strict=True)
        for run in planned_grid(PAIR, [0.1], variant=variant, training=SHORT.model_copy(update={"learning_rate": rate}))
    ]
    for run in planned:
        best = 0.31 if run.variant == variants[0] else 0.32
        write_result(tmp_path, make_result(run, {"val_accuracy": (best, 0)}))
    names = [path.name.removesuffix(".md") for path in write_planned(tmp_path, planned, {}) if path.suffix == ".md"]
    of_variants = [f"table-4.5{kind}-{name}" for name in variants for kind in ("", "-mean")]
    assert names == [*(f"table-4.{number}" for number in range(1, 5)), *of_variants]
    for variant, value in zip(variants, ("0.31", "0.32"), strict=True):
        table, paragraphs = read_markdown((tmp_path / "tables" / f"table-4.5-{variant}.md").read_text())
        assert [row[1] for row in table[1:4]] == [value] * 3
        assert paragraphs[0].startswith("Table 4.5. Best training")
        assert paragraphs[0].endswith(f"Variant: {variant}.")
        latex = (tmp_path / "tables" / f"table-4.5-{variant}.tex").read_text()
        assert rf"\label{{tab:4.5-{variant}}}" in latex
        assert "Variant: learning\\_rate=" in latex


def test_a_plan_that_makes_no_table_is_an_error(tmp_path: Path) -> None:
    """No runs at all, or two for one cell, is refused with a reason rather than printed wrongly."""
    with pytest.raises(AnalysisError, match="no runs"):
        write_planned(tmp_path, [], {})
    run = planned_run()
    with pytest.raises(AnalysisError, match=r"several runs for one ratio and seed: resnet18-cifar10-r0\.02-s42"):
        build_tables(Study("study", [run, run], {}, {run.run.id: "planned"}))


@pytest.mark.slow
def test_writing_tables_imports_no_torch(tmp_path: Path) -> None:
    """Tables are for a login node: neither torch nor anything of the cluster is loaded, and pandas only to load()."""
    planned = planned_grid(PAIR, [0.1], training=SHORT)
    write_grid(tmp_path, planned)
    code = f"""
import sys
sys.path[:0] = {PLACES!r}
from pathlib import Path
from result_fixtures import *
import analysis, analysis.tables
write_planned(Path({str(tmp_path)!r}), planned_grid(PAIRS[:1], [0.1], training=Recipe(epochs=4)), {{}})
roots = {{name.partition(".")[0] for name in sys.modules}}
assert "pandas" not in roots, "pandas"
assert len(analysis.load({str(tmp_path)!r})) == 3
roots = {{name.partition(".")[0] for name in sys.modules}}
assert "pandas" in roots
found = roots & {{"torch", "torchvision", "submitit", "sweep", "slurm", "sklearn"}}
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables" / "table-4.5.csv").is_file()


def test_the_means_name_their_seeds_and_hide_no_gap(tmp_path: Path) -> None:
    """Mean ± sample standard deviation; a mean of fewer seeds has a star and a note; one seed has no deviation."""
    planned = planned_grid(PAIR, [0.1, 0.2, 0.4, 1.0], training=SHORT)
    accuracies = {42: 0.40, 43: 0.44, 44: 0.51}
    for run in planned:
        if (run.run.ratio, run.run.seed) not in {(0.2, 44), (0.4, 43), (0.4, 44)} and run.run.ratio < 1:
            write_result(tmp_path, make_result(run, {"val_accuracy": (accuracies[run.run.seed], run.run.seed - 42)}))
    missing = {run.run.id: "planned" for run in planned if not (tmp_path / "runs" / run.run.id).exists()}
    write_planned(tmp_path, planned, missing)
    assert cells(tmp_path / "tables" / "table-4.5-mean.csv") == [
        ["Ratio", "Images", "Val Acc", "Val Loss", "Train Acc", "Train Loss", "Seeds"],
        ["0.1", "5,000", "0.45 ± 0.06", "0.66 ± 0.00", "0.96 ± 0.00", "0.11 ± 0.00", "3"],
        ["0.2", "10,000", "0.42 ± 0.03*", "0.66 ± 0.00*", "0.96 ± 0.00*", "0.11 ± 0.00*", "2 of 3"],
        ["0.4", "20,000", "0.40*", "0.66*", "0.96*", "0.11*", "1 of 3"],
        ["1.0", "50,000", "-inf", "inf", "-inf", "inf", "0 of 3"],
    ]
    paragraphs = read_markdown((tmp_path / "tables" / "table-4.5-mean.md").read_text())[1]
    assert paragraphs[0].startswith("Table 4.5 (means). Mean and sample standard deviation over 3 random seeds")
    assert "* Fewer seeds than planned at ratio 0.2 (2 of 3 seeds), 0.4 (1 of 3 seeds)." in paragraphs
    assert paragraphs[-1].startswith("Missing: resnet18-cifar10-r0.2-s44, ")


def test_a_run_that_went_on_on_another_device_is_named_with_what_computed_which_epochs(tmp_path: Path) -> None:
    """Table 4.4 names it, provenance.csv says from which epoch on what; another number format is not mixed silently."""
    planned = planned_grid(PAIR, [0.1], [42, 43], training=SHORT)
    whole, crossed = (make_result(run) for run in planned)
    v100 = Stretch(epoch=0, device="Tesla V100", precision="fp16", threads=4, torch="2.7.1")
    p100 = v100.model_copy(update={"epoch": 2, "device": "Tesla P100", "precision": "fp32"})
    hardware = crossed.hardware.model_copy(update={"stretches": [v100, p100]})
    write_result(tmp_path, whole)
    write_result(tmp_path, crossed.model_copy(update={"hardware": hardware}))
    with pytest.raises(MixedError, match="different precisions: fp16 then fp32 in 1 runs, fp32 in "):
        refuse_mixed(read_study(tmp_path, planned, {}))
    write_planned(tmp_path, planned, {})
    notes = read_markdown((tmp_path / "tables" / "table-4.4.md").read_text())[1]
    assert any(note.endswith(f"(provenance.csv has what): {planned[1].run.id}.") for note in notes)
    rows = list(csv.DictReader((tmp_path / "tables" / "provenance.csv").read_text().splitlines()))
    assert [row["stretches"] for row in rows] == [
        "",
        "from epoch 0: Tesla V100, fp16, 4 threads, torch 2.7.1; "
        "from epoch 2: Tesla P100, fp32, 4 threads, torch 2.7.1",
    ]


def test_summary_and_provenance_tell_every_number_and_where_it_comes_from(tmp_path: Path) -> None:
    """summary.csv has the means with all digits, provenance.csv a row a planned run, used or not and why."""
    planned = planned_grid(PAIR, [0.1, 0.2], training=SHORT)
    write_grid(tmp_path, planned, planned[4].run.id)
    write_result(tmp_path, make_result(planned[0], {"val_loss": (0.5, 0)}, attempts=2))
    write_planned(tmp_path, planned, {planned[4].run.id: "failed, host_oom: out of\nmemory"})
    summary = list(csv.DictReader((tmp_path / "tables" / "summary.csv").read_text().splitlines()))
    assert len(summary) == 2 * 4
    [row] = [row for row in summary if (row["ratio"], row["metric"]) == ("0.1", "val_loss")]
    assert float(row["mean"]) == statistics.fmean([0.5, 0.66, 0.66])
    assert float(row["std"]) == statistics.stdev([0.5, 0.66, 0.66])
    assert [row[key] for key in ("table", "n", "planned", "min", "max")] == ["4.5", "3", "3", "0.5", "0.66"]
    assert (row["train_samples"], float(row["epoch_mean"])) == ("5000", 2 / 3)
    assert [row["n"] for row in summary if row["ratio"] == "0.2"] == ["2"] * 4
    first, *_, fifth, _ = csv.DictReader((tmp_path / "tables" / "provenance.csv").read_text().splitlines())
    expected = {
        "run": "resnet18-cifar10-r0.1-s42",
        "used": "True",
        "reason": "",
        "attempt": "2",
        "attempts": "2",
        "job": "18",
        "host": "v100-1",
        "gpus": "4x Tesla V100-PCIE-16GB",
        "precision": "fp32",
        "git_state": "0123abc",
        "torch": "2.7.1",
        "training_hash": SHORT.hash,
        "data_fingerprint": "0" * 64,
    }
    assert {key: first[key] for key in expected} == expected
    assert (fifth["used"], fifth["reason"]) == ("False", "failed, host_oom: out of memory")
    assert fifth["torch"] == ""


def test_mixed_results_are_marked_in_the_tables_they_are_in(tmp_path: Path) -> None:
    """Caption and footnote carry a dagger and say which runs differ in what; other tables carry none."""
    planned = planned_grid(PAIRS[:2], [0.1], training=SHORT)
    write_grid(tmp_path, planned)
    result = make_result(planned[1])
    dirty = result.environment.model_copy(update={"git_dirty": True})
    fp16 = result.hardware.model_copy(update={"precision": "fp16"})
    write_result(tmp_path, result.model_copy(update={"environment": dirty, "hardware": fp16}))
    write_planned(tmp_path, planned, {})
    for kind in ("", "-mean"):
        paragraphs = read_markdown((tmp_path / "tables" / f"table-4.5{kind}.md").read_text())[1]
        assert paragraphs[0].endswith(" †")
        assert paragraphs[-1] == (
            "† Mixed: different precisions: fp32 in 2 runs, fp16 in resnet18-cifar10-r0.1-s43; "
            "different git states: 0123abc in 2 runs, 0123abc with changes in resnet18-cifar10-r0.1-s43."
        )
        assert "†" not in (tmp_path / "tables" / f"table-4.6{kind}.md").read_text()
