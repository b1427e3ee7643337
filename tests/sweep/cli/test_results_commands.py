"""From result files to tables, figures, comparison and report, by the commands a user types."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from result_fixtures import make_result, write_result

from sweep.config.load import load_sweep
from sweep.plan.record import planned_run
from trainer.records.files import read_json
from trainer.records.plan import PlannedRun
from trainer.records.recipe import Recipe
from trainer.records.result import Result
from trainer.records.run import RunFolder

RATIOS = [0.02, 0.05, 0.1, 0.2]
COMMANDS = {"tables": "tables", "figures": "figures", "compare": "comparison", "report": "report"}
ODD = "vit-cifar10-r0.1-s43"


class Study:
    """A sweep file with a result of every run, and the commands on it."""

    def __init__(self, command: Command, file: Path, folder: Path) -> None:
        self.command = command
        self.file = file
        self.folder = folder
        self.planned: list[PlannedRun] = [planned_run(placed) for placed in load_sweep(file).runs]
        for run in self.planned:
            images = run.train_samples / 50_000
            write_result(folder, make_result(run, {"val_accuracy": (0.4 + 0.3 * images + run.run.seed / 5000, 2)}))

    def __call__(self, name: str, *arguments: object, expect: int = 0) -> str:
        """Run a command; give what it said to the user."""
        done = self.command(name, self.file, *arguments, expect=expect)
        return done.stdout + done.stderr

    def written(self, name: str) -> dict[str, bytes]:
        """Return the files that a command has written, by name."""
        return {path.name: path.read_bytes() for path in (self.folder / COMMANDS[name]).iterdir()}

    def change(self, run_id: str, part: str, **update: Any) -> None:
        """Alter a part of a run's result, which stays valid."""
        result = read_json(RunFolder(self.folder / "runs" / run_id).result, Result)
        assert result is not None
        changed = getattr(result, part).model_copy(update=update)
        write_result(self.folder, result.model_copy(update={part: changed}))


def make_study(command: Command, folder: Path) -> Study:
    """Two architectures on one dataset at four ratios, two seeds each; all done, no data prepared here."""
    file = folder / "study.yaml"
    grid = {"architecture": ["resnet18", "vit"], "dataset": ["cifar10"], "ratio": RATIOS, "seed": [42, 43]}
    training = {"epochs": 6, "lr_milestones": [4]}
    file.write_text(json.dumps({"name": "study", "grid": grid, "training": training, "output": str(folder / "runs")}))
    return Study(command, file, folder / "runs" / "study")


@pytest.fixture
def study(sweep: Command, tmp_path: Path) -> Study:
    return make_study(sweep, tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What each command writes, by name, while every run is done and the study lies in a folder of its own."""
    folder = tmp_path_factory.mktemp("whole")
    made = make_study(Command("sweep", folder), folder)
    return {name: (made(name), made.written(name))[1] for name in COMMANDS}


@pytest.mark.slow
@pytest.mark.xdist_group("whole results")
def test_commands_give_the_same_bytes_again(study: Study, whole: dict[str, dict[str, bytes]]) -> None:
    """Nothing of the clock, the machine, the folder or chance is in any file."""
    for name in COMMANDS:
        study(name)
        assert study.written(name)
        assert study.written(name) == whole[name]
        assert not any(str(study.folder).encode() in content for content in whole[name].values())


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def _tamper(path: Path) -> None:
    text = path.read_text()
    assert '"value": 0.' in text
    path.write_text(text.replace('"value": 0.', '"value": 0.1', 1))


def _retrain(path: Path) -> None:
    result = read_json(path, Result)
    assert result is not None
    recipe = result.training.model_copy(update={"dropout": 0.5})
    path.write_text(
        result.model_copy(update={"training": recipe, "training_hash": recipe.hash}).model_dump_json(indent=1)
    )


# What befalls which run, and the words for it.
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    ODD: (_delete, "planned"),
    "vit-cifar10-r0.02-s42": (_truncate, "result.json: damaged: its checksum does not match"),
    "vit-cifar10-r0.05-s43": (_tamper, "result.json: damaged: its checksum does not match"),
    "vit-cifar10-r0.2-s42": (_retrain, "stale: done, with another recipe than the plan's"),
}


@pytest.mark.slow
@pytest.mark.xdist_group("whole results")
def test_results_that_are_gone_or_changed_are_named_and_the_rest_stays(
    study: Study, whole: dict[str, dict[str, bytes]]
) -> None:
    """Table, figure captions, comparison and report say which runs and why; tables and figures of others keep bytes."""
    for run_id, (act, _) in DAMAGE.items():
        act(RunFolder(study.folder / "runs" / run_id).result)
    for name in COMMANDS:
        said = study(name)
        assert name == "compare" or f"{len(DAMAGE)} of 16 runs are missing" in said
    now = {name: study.written(name) for name in COMMANDS}

    def text(name: str, file: str) -> str:
        return now[name][file].decode().replace("\\", "").replace("&#39;", "'")

    for run_id, (_, words) in DAMAGE.items():
        for name, file in (("tables", "table-4.6.md"), ("tables", "table-4.6-mean.md"), ("figures", "captions.md")):
            assert run_id in text(name, file)
            assert words in text(name, file)
        assert words in text("report", "index.html")
        assert run_id in text("compare", "verdicts.md")
    assert "(1 of 2 seeds)" in text("tables", "table-4.6-mean.md")
    for name, file in (("tables", "table-4.5.csv"), ("tables", "table-4.5-mean.tex"), ("figures", "figure-4.3.png")):
        assert now[name][file] == whole[name][file]
    header, *rows = now["tables"]["table-4.6.csv"].decode().splitlines()
    _, *before = whole["tables"]["table-4.6.csv"].decode().splitlines()
    gone = {tuple(run_id.rsplit("-r", 1)[1].split("-s")) for run_id in DAMAGE}  # (ratio, seed)
    for row, old in zip(rows, before, strict=True):
        cells, olds = row.split(","), old.split(",")
        for ratio, seed in gone:
            if f"(S{seed})" in row:
                column = header.split(",").index(ratio)
                assert cells[column] in ("-inf", "inf", "nan")
                olds[column] = cells[column]
        assert cells == olds


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_results_that_differ_in_code_or_precision_are_refused_by_every_command(study: Study, name: str) -> None:
    """The list goes to stderr, the exit code is 2, nothing is written; --allow-mixed marks them."""
    study.change(ODD, "environment", git_commit="fedcba9")
    study.change("resnet18-cifar10-r0.02-s42", "hardware", precision="bf16")
    said = study(name, expect=2)
    assert "cifar10: different precisions: fp32 in 15 runs, bf16 in resnet18-cifar10-r0.02-s42" in said
    assert f"cifar10: different git states: 0123abc in 15 runs, fedcba9 in {ODD}" in said
    assert not (study.folder / COMMANDS[name]).exists()


@pytest.mark.slow
def test_an_export_lies_in_a_folder_of_its_own_and_mixes_as_little(study: Study) -> None:
    """The folder is printed; a run without a result is in missing.csv; odd results are refused there too."""
    (study.folder / "runs" / ODD / "result.json").unlink()
    folder = study.folder / "export" / "csv"
    assert str(folder) in study("export", "--to", "csv")
    assert len((folder / "runs.csv").read_text().splitlines()) == 1 + 15
    assert ODD in (folder / "missing.csv").read_text()
    study.change("resnet18-cifar10-r0.02-s42", "hardware", precision="bf16")
    assert "different precisions" in study("export", "--to", "csv", expect=2)
    assert "expected one of csv, parquet" in study("export", "--to", "excel", expect=2)


@pytest.mark.slow
def test_allowed_mixtures_are_marked_everywhere(study: Study) -> None:
    """Also a result of another recipe may stand in then, with its footnote."""
    _retrain(RunFolder(study.folder / "runs" / ODD).result)
    for name, file in (
        ("tables", "table-4.6.md"),
        ("figures", "captions.md"),
        ("compare", "verdicts.md"),
        ("report", "index.html"),
    ):
        study(name, "--allow-mixed")
        text = study.written(name)[file].decode().replace("\\", "")
        assert f"different recipes: {Recipe(epochs=6, lr_milestones=(4,)).hash[:12]} in " in text
        assert f" in {ODD}" in text
    assert "†" not in study.written("tables")["table-4.5.md"].decode()
    assert (
        "†" in study.written("tables")["table-4.6.tex"].decode()
        or r"\dag" in study.written("tables")["table-4.6.tex"].decode()
    )


@pytest.mark.slow
def test_a_comparison_is_one_json_document(study: Study, tmp_path: Path) -> None:
    """--json prints it and writes nothing; another reference of the same form is read."""
    document = json.loads(study.command("compare", study.file, "--json").stdout)
    assert document["schema_version"] == 1
    assert document["reference"] == "thesis.csv"
    assert {table["table"] for table in document["tables"]} == {"4.5", "4.6"}
    assert not (study.folder / "comparison").exists()
    other = tmp_path / "other.csv"
    other.write_text("table,architecture,dataset,ratio,seed,metric,best,epoch\n1,vit,cifar10,0.1,,val_accuracy,0.5,7\n")
    document = json.loads(study.command("compare", study.file, "--reference", other, "--json").stdout)
    assert document["reference"] == "other.csv"
    other.write_text("table,architecture,dataset,ratio,seed,metric,best\n")
    assert "other.csv:1: " in study("compare", "--reference", other, expect=2)


@pytest.mark.slow
def test_what_cannot_be_written_is_one_sentence(study: Study) -> None:
    """A file where the folder should be: exit code 1, no traceback, and the file is untouched."""
    for name, folder in COMMANDS.items():
        (study.folder / folder).write_text("mine")
        said = study(name, expect=1)
        assert "could not be written" in said
        assert "Traceback" not in said
        assert (study.folder / folder).read_text() == "mine"
