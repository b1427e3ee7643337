"""Exports: every number arrives in each target's own reader, nothing of others is touched, nothing goes out."""

import csv
import json
import logging
import math
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from conftest import PLACES, REPOSITORY
from result_fixtures import STARTED, make_result, planned_run, read_study, write_result

from analysis import AnalysisError
from analysis.export import TARGETS, Target, export
from analysis.export.runs import epoch_ends
from analysis.export.surroundings import surroundings
from analysis.load import COLUMNS, HISTORY_COLUMNS, run_row
from analysis.study import Study
from trainer.records.recipe import Recipe
from trainer.records.result import Best, History, Result

EPOCHS = 4
AUTO = Recipe(epochs=EPOCHS, lr_milestones=(2,), precision="auto")
REASON = 'failed: cuda_oom, "out of memory"\n  at step 3'
PLAN = [
    planned_run(seed=42, training=AUTO),
    planned_run(seed=43, training=AUTO),
    planned_run("vit", "tinyimagenet", 0.075, 44, variant="name=größe 'A' 日本", training=AUTO),
    planned_run("vit", "tinyimagenet", 1.0, 42, training=AUTO),
]
DONE = PLAN[:3]


def uneven(position: int) -> Result:
    """Return a result no two of whose numbers are equal, and none of them round."""
    result = make_result(DONE[position], attempts=2)
    names = list(History.model_fields)
    history = History(
        **{
            name: [math.sqrt(2 + 7 * position + EPOCHS * names.index(name) + epoch) / 10 for epoch in range(EPOCHS)]
            for name in names
        }
    )
    return result.model_copy(update={"history": history, "best": Best.of(history)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of three results and a run without one."""
    path = tmp_path / "sw"
    for position in range(len(DONE)):
        write_result(path, uneven(position))
    return path


def study_of(folder: Path, count: int = len(PLAN)) -> Study:
    """Read the study of the first runs of the plan."""
    return read_study(folder, PLAN[:count], {PLAN[3].run.id: REASON} if count > 3 else {})


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What a child process needs to export the same study.
CHILD = """
import sys
from pathlib import Path
sys.path[:0] = {places!r}
from test_export import export, study_of
folder, to, out, count = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
"""


class Trap:
    """A proxy that hears every try to reach a network and answers none."""

    def __init__(self) -> None:
        self.heard = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.heard += 1
            connection.close()

    def environment(self) -> dict[str, str]:
        """Return an environment whose every way out leads here, and that does not look like a test's."""
        hidden = ("NO_PROXY", "CI", "PYTEST_", "WANDB_", "MLFLOW_", "GITHUB_")
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(hidden)}
        address = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        ways = {name: address for way in ("HTTP", "HTTPS", "ALL") for name in (f"{way}_PROXY", f"{way.lower()}_proxy")}
        return {**kept, **ways}

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


@pytest.fixture
def trap() -> Iterator[Trap]:
    """Listen while a test runs."""
    listening = Trap()
    yield listening
    listening.close()


def child(code: str, *arguments: object, environment: dict[str, str] | None = None, expect: int = 0) -> Any:
    """Run Python in a process of its own, home and temporary folder too; give what it printed as JSON, if anything."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(places=[str(Path(__file__).parent), *PLACES]) + code, *map(str, arguments)],
        env={**(environment or os.environ), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def export_in_child(folder: Path, to: Target, out: Path, trap: Trap, count: int = len(PLAN)) -> None:
    """Export with every way out trapped and a home that must stay empty."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    code = "import os; os.chdir(os.environ['HOME']); export(study_of(folder, count), to, out)"
    child(code, folder, to, out, count, environment={**trap.environment(), "HOME": str(home)})
    assert snapshot(home) == {}
    assert trap.heard == 0


@pytest.mark.slow
def test_the_trap_hears_a_try_to_reach_the_network(trap: Trap) -> None:
    """So that its silence means something."""
    code = (
        "import urllib.request\ntry: urllib.request.urlopen('http://example.invalid', timeout=20)\nexcept OSError: pass"
    )
    child(code, "", "csv", "", 0, environment=trap.environment())
    assert trap.heard == 1


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with Python's own reader."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_number_and_every_missing_run(folder: Path, tmp_path: Path) -> None:
    """runs.csv and history.csv read back equal to the results, bit for bit; missing.csv says why."""
    study = study_of(folder)
    paths = export(study, "csv", tmp_path / "out")
    assert [path.name for path in paths] == ["missing.csv", "runs.csv", "history.csv"]
    missing, runs, history = map(read_csv, paths)
    assert list(runs[0]) == list(COLUMNS)
    assert runs == [
        {name: "" if value is None else str(value) for name, value in run_row(result).items()}
        for result in study.results.values()
    ]
    assert list(history[0]) == list(HISTORY_COLUMNS)
    assert [(row["id"], int(row["epoch"])) for row in history] == [
        (run.run.id, epoch) for run in DONE for epoch in range(EPOCHS)
    ]
    for name in History.model_fields:
        assert [float(row[name]) for row in history] == [
            value for result in study.results.values() for value in getattr(result.history, name)
        ]
    assert [(row["id"], row["reason"]) for row in missing] == [(PLAN[3].run.id, REASON)]
    frame = pandas.read_csv(paths[1])
    assert list(frame["id"]) == list(study.results)
    # pandas before 3 reads the last digit fast, not exactly.
    assert list(frame["val_loss"]) == pytest.approx([row.best.val_loss.value for row in study.results.values()], 1e-15)


def test_parquet_holds_every_number_with_its_type(folder: Path, tmp_path: Path) -> None:
    """Text is dictionary-encoded, counts are integers, there is no index; the values are those of the results."""
    import pyarrow
    from pyarrow import parquet

    study = study_of(folder)
    _, runs_path, history_path = export(study, "parquet", tmp_path / "out")
    runs, history = parquet.read_table(runs_path), parquet.read_table(history_path)
    assert runs.column_names == list(COLUMNS)
    assert runs.to_pylist() == [run_row(result) for result in study.results.values()]
    assert history.column_names == list(HISTORY_COLUMNS)
    for name in History.model_fields:
        assert history[name].to_pylist() == [
            value for result in study.results.values() for value in getattr(result.history, name)
        ]
    assert history["id"].to_pylist() == [run.run.id for run in DONE for _ in range(EPOCHS)]
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    types = {field.name: field.type for field in [*runs.schema, *history.schema]}
    for name, value in {**run_row(uneven(0)), "epoch": 0, "learning_rate": 0.1, "epoch_seconds": 0.1}.items():
        expected = {str: text, int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}[type(value)]
        assert types[name] == expected, name
    assert not (runs.schema.metadata or {}).get(b"pandas")


def test_parquet_keeps_what_is_unknown_and_several_row_groups(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit is null, not text; many runs are written some at a time and read back as one."""
    from pyarrow import parquet

    from analysis.export import parquet_files

    monkeypatch.setattr(parquet_files, "RUNS_A_GROUP", 2)
    result = uneven(0)
    unknown = result.environment.model_copy(update={"git_commit": None, "git_dirty": None, "cuda": None})
    write_result(folder, result.model_copy(update={"environment": unknown, "attempts": []}))
    _, runs, history = export(study_of(folder), "parquet", tmp_path / "out")
    first = parquet.read_table(runs).to_pylist()[0]
    assert [first[name] for name in ("git_commit", "git_dirty", "cuda", "attempt", "job")] == [None] * 5
    assert parquet.ParquetFile(history).num_row_groups == 2
    assert parquet.read_table(history)["id"].to_pylist() == [run.run.id for run in DONE for _ in range(EPOCHS)]


def test_tensorboard_shows_every_epoch_and_the_settings(folder: Path, tmp_path: Path) -> None:
    """Its own reader finds a series a metric (float32 is all it keeps), the times of training, and the hparams."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    study = study_of(folder)
    out = tmp_path / "out"
    paths = export(study, "tensorboard", out)
    assert {path.parent.name for path in paths[1:]} == set(study.results)
    tags = {
        **{f"{kind}_{what}": f"{what}/{kind}" for kind in ("train", "val") for what in ("loss", "accuracy")},
        "learning_rate": "learning_rate",
        "epoch_seconds": "epoch_seconds",
    }
    for name, result in study.results.items():
        reader = EventAccumulator(str(out / name), size_guidance={"scalars": 0})
        reader.Reload()
        assert sorted(reader.Tags()["scalars"]) == sorted(tags.values())
        for column, tag in tags.items():
            scalars = reader.Scalars(tag)
            assert [scalar.step for scalar in scalars] == list(range(EPOCHS))
            values = getattr(result.history, column)
            assert [scalar.value for scalar in scalars] == [float(numpy.float32(value)) for value in values]
            assert [scalar.wall_time for scalar in scalars] == epoch_ends(result)
        content = reader.summary_metadata[SESSION_START_INFO_TAG].plugin_data.content
        info = parse_session_start_info_plugin_data(content)
        assert info.hparams["ratio"].number_value == result.run.ratio
        assert info.hparams["architecture"].string_value == result.run.architecture
        assert info.hparams["augmentation"].bool_value is True
        assert info.hparams["precision"].string_value == "fp32"
        assert info.group_name == name


def test_an_epoch_ended_in_the_attempt_that_kept_it() -> None:
    """Epochs count from their attempt's start; one done again after a lost checkpoint is the later attempt's."""
    result = uneven(0)
    history = result.history.model_copy(update={"epoch_seconds": [1.0, 2.0, 4.0, 8.0]})
    first, second = result.attempts
    attempts = [
        first.model_copy(update={"start_epoch": 0, "end_epoch": 2}),
        second.model_copy(update={"start_epoch": 1, "end_epoch": 4, "started": STARTED + timedelta(hours=5)}),
    ]
    ends = epoch_ends(result.model_copy(update={"history": history, "attempts": attempts}))
    one, two = first.started.timestamp(), STARTED.timestamp() + 5 * 3600
    assert ends == [one + 1, two + 2, two + 6, two + 14]


@pytest.mark.slow
def test_mlflow_holds_every_number_with_its_time(folder: Path, tmp_path: Path, trap: Trap) -> None:
    """Its client finds one experiment, a run a run, the series by step and time, parameters and tags; no network."""
    study = study_of(folder)
    out = tmp_path / "out é="
    export_in_child(folder, "mlflow", out, trap)
    store = read_mlflow(out)
    assert set(store) == set(study.results)
    for name, result in study.results.items():
        run = store[name]
        assert run["name"] == name
        assert run["status"] == "FINISHED"
        assert run["start"] == result.attempts[0].started.timestamp() * 1000
        for column in History.model_fields:
            assert run["series"][column] == [
                [epoch, round(1000 * end), value]
                for epoch, (end, value) in enumerate(
                    zip(epoch_ends(result), getattr(result.history, column), strict=True)
                )
            ]
        assert run["metrics"]["best_val_accuracy"] == result.best.val_accuracy.value
        assert run["metrics"]["best_val_loss_epoch"] == result.best.val_loss.epoch
        assert run["metrics"]["total_seconds"] == result.timing.total_seconds
        assert run["params"]["ratio"] == str(result.run.ratio)
        assert run["params"]["lr_milestones"] == "[2]"
        assert run["tags"]["sweep.state"] == "done"
        assert run["tags"]["sweep.git_commit"] == "0123abc"
        assert run["tags"]["sweep.gpus"] == run_row(result)["gpus"]
    assert str(tmp_path) not in (out / "mlflow.db").read_bytes().decode("latin1")


@pytest.mark.slow
def test_a_second_export_to_mlflow_changes_only_what_changed(folder: Path, tmp_path: Path, trap: Trap) -> None:
    """Unchanged runs keep their MLflow id, a changed one is replaced, a gone one is deleted; others' runs stay."""
    out = tmp_path / "out"
    export_in_child(folder, "mlflow", out, trap)
    before = read_mlflow(out)
    child(
        "from mlflow import MlflowClient\n"
        "client = MlflowClient(f'sqlite:///{out}/mlflow.db')\n"
        "client.create_run(client.get_experiment_by_name('sw').experiment_id, run_name='mine')",
        *(folder, "mlflow", out, 0),
    )
    changed = uneven(1)
    timing = changed.timing.model_copy(update={"total_seconds": 301.5})
    write_result(folder, changed.model_copy(update={"timing": timing}))
    export_in_child(folder, "mlflow", out, trap, count=2)
    after = read_mlflow(out)
    assert set(after) == {DONE[0].run.id, DONE[1].run.id, "mine"}
    assert after[DONE[0].run.id]["id"] == before[DONE[0].run.id]["id"]
    assert after[DONE[1].run.id]["id"] != before[DONE[1].run.id]["id"]
    assert after[DONE[1].run.id]["metrics"]["total_seconds"] == 301.5


def read_mlflow(out: Path) -> dict[str, Any]:
    """Read a store with MLflow's own client."""
    found: list[dict[str, Any]] = child(
        """
import json
from mlflow import MlflowClient
client = MlflowClient(f"sqlite:///{out}/mlflow.db")
(experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
assert experiment.name == "sw"
print(json.dumps([{
    "id": run.info.run_id, "name": run.info.run_name, "status": run.info.status, "start": run.info.start_time,
    "params": run.data.params, "tags": run.data.tags, "metrics": run.data.metrics,
    "series": {
        name: [[m.step, m.timestamp, m.value] for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    },
} for run in client.search_runs([experiment.experiment_id])]))
""",
        *("", "mlflow", out, 0),
    )
    assert len({run["name"] for run in found}) == len(found)
    return {run["name"]: run for run in found}


@pytest.mark.slow
def test_wandb_runs_hold_every_number_and_can_be_synced(folder: Path, tmp_path: Path, trap: Trap) -> None:
    """Each record holds config, history by step and summary as wandb's own schema reads them; sync takes the folder."""
    study = study_of(folder)
    out = tmp_path / "out"
    export_in_child(folder, "wandb-offline", out, trap)
    names = sorted(str(path.relative_to(out)) for path in out.glob("offline-run-*/run-*.wandb"))
    assert len(names) == len(DONE)
    runs = {run["name"]: run for run in map(read_wandb, (out / name for name in names))}
    assert set(runs) == set(study.results)
    for name, result in study.results.items():
        run = runs[name]
        assert (run["project"], run["host"]) == ("sw", result.hardware.host)
        assert run["config"]["ratio"] == result.run.ratio
        assert run["config"]["precision"] == "fp32"
        assert run["config"]["gpus"] == run_row(result)["gpus"]
        assert [row["_step"] for row in run["history"]] == list(range(EPOCHS))
        assert [row["_timestamp"] for row in run["history"]] == epoch_ends(result)
        for column in History.model_fields:
            assert [row[column] for row in run["history"]] == getattr(result.history, column)
        assert run["summary"]["best_val_loss"] == result.best.val_loss.value
        assert run["summary"]["best_val_loss_epoch"] == result.best.val_loss.epoch
        assert run["summary"]["total_seconds"] == result.timing.total_seconds
    listed = subprocess.run(
        [Path(sys.executable).parent / "wandb", "sync", "--dry-run", out],
        env={**trap.environment(), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    text = listed.stdout + listed.stderr
    assert "Would sync 3 run(s)" in text, text
    assert all(name in text for name in names), text
    export_in_child(folder, "wandb-offline", out, trap, count=1)
    assert len(list(out.glob("offline-run-*/*"))) == 1


def test_a_wandb_run_of_the_reader_is_left_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is open in the process, the export would end it: it says so instead, and writes nothing."""
    import wandb

    monkeypatch.setattr(wandb, "run", object())
    with pytest.raises(AnalysisError, match="has a wandb run open; finish it, then export again"):
        export(study_of(folder), "wandb-offline", tmp_path / "out")
    assert not list((tmp_path / "out").glob("offline-run-*"))


def read_wandb(path: Path) -> dict[str, Any]:
    """Read an offline run: LevelDB's log format (blocks of 32 KiB), a protobuf of wandb's a record."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data.startswith(b":W&B")
    run: dict[str, Any] = {"history": [], "summary": {}}
    at, parts = 7, b""
    while at < len(data):
        room = 32_768 - at % 32_768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # neither whole nor the last part
            continue
        record = wandb_internal_pb2.Record.FromString(parts)
        parts = b""

        def values(items: Any) -> dict[str, Any]:
            return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

        if record.HasField("run"):
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            run |= {"name": record.run.display_name, "project": record.run.project, "config": config}
            run["host"] = record.run.host
        elif record.HasField("history"):
            run["history"].append(values(record.history.item))
        elif record.HasField("summary"):
            run["summary"] |= values(record.summary.update)
    return run


def test_a_library_finds_our_settings_and_the_user_gets_theirs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's WANDB_PROJECT names no export's project, and is there again afterwards, also after an error."""
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logger = logging.getLogger("noisy")
    before = dict(os.environ)

    def fail() -> None:
        with surroundings("WANDB_", {"WANDB_MODE": "offline"}, ("noisy",)):
            assert {name: value for name, value in os.environ.items() if name.startswith("WANDB_")} == {
                "WANDB_MODE": "offline"
            }
            assert not logger.isEnabledFor(logging.WARNING)
            os.environ["WANDB_SERVICE"] = "left behind"
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert dict(os.environ) == before
    assert logger.isEnabledFor(logging.WARNING)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["csv", "parquet", "tensorboard"])
def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path, to: Target) -> None:
    """Whatever the process, its hash seed and the folder."""
    seen = []
    for seed in ("1", "2"):
        out = tmp_path / f"out-{seed}"
        code = "export(study_of(folder, count), to, out)"
        child(code, folder, to, out, len(PLAN), environment={**os.environ, "PYTHONHASHSEED": seed})
        seen.append(snapshot(out))
    assert seen[0] == seen[1]
    assert len(seen[0]) > 3


@pytest.mark.parametrize("to", ["csv", "parquet", "tensorboard"])
def test_a_second_export_replaces_the_first_and_touches_nothing_else(folder: Path, tmp_path: Path, to: Target) -> None:
    """Files of runs that are gone go too; what the user put beside them stays, hidden files and all."""
    out = tmp_path / "out"
    export(study_of(folder), to, out)
    theirs = {"notes.txt": b"mine", ".notes.tmp": b"mine too", f"{DONE[0].run.id}/seen": b"yes"}
    for name, content in theirs.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    export(study_of(folder, count=1), to, out)
    fresh = tmp_path / "fresh"
    export(study_of(folder, count=1), to, fresh)
    assert snapshot(out) == snapshot(fresh) | theirs
    assert not (out / DONE[1].run.id).exists()


@pytest.mark.parametrize("to", TARGETS)
def test_a_file_of_someone_else_is_never_replaced(folder: Path, tmp_path: Path, to: Target) -> None:
    """The sentence names the file, and nothing is written at all."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "missing.csv").write_text("mine")
    with pytest.raises(AnalysisError, match=r"missing\.csv: there already, and not from an export to .*; name another"):
        export(study_of(folder), to, out)
    assert snapshot(out) == {"missing.csv": b"mine"}


def test_the_export_of_another_sweep_and_a_file_are_no_folder_to_export_to(folder: Path, tmp_path: Path) -> None:
    """Neither is overwritten."""
    out = tmp_path / "out"
    export(study_of(folder), "csv", out)
    before = snapshot(out)
    other = Study("other", PLAN[3:], {}, {PLAN[3].run.id: "planned"})
    with pytest.raises(AnalysisError, match="holds the export of the sweep 'sw'"):
        export(other, "csv", out)
    assert snapshot(out) == before
    with pytest.raises(AnalysisError, match="is a file"):
        export(other, "csv", out / "runs.csv")


@pytest.mark.parametrize("reach", ["../precious", "/precious", "a/../../precious", ""])
def test_an_altered_list_of_files_reaches_nothing_outside(folder: Path, tmp_path: Path, reach: str) -> None:
    """A list that names what is not in the folder is refused, and nothing is deleted."""
    out = tmp_path / "out"
    export(study_of(folder), "csv", out)
    precious = tmp_path / "precious"
    precious.write_text("keep")
    listing = out / ".export-csv.json"
    document = json.loads(listing.read_text())
    document["files"].append(reach)
    del document["sha256"]  # whoever alters it can write the checksum anew as well
    listing.write_text(json.dumps(document))
    with pytest.raises(AnalysisError, match="is not a file of the folder"):
        export(study_of(folder), "csv", out)
    assert precious.read_text() == "keep"


@pytest.mark.slow
@pytest.mark.parametrize("to", ["csv", "tensorboard"])
def test_an_export_that_was_killed_leaves_whole_files_and_is_made_good(
    folder: Path, tmp_path: Path, to: Target
) -> None:
    """Killed after any run, every file that is there is whole; the next export ends as if nothing had been."""
    fresh = tmp_path / "fresh"
    export(study_of(folder), to, fresh)
    whole = snapshot(fresh)
    for after in range(len(DONE)):
        out = tmp_path / f"killed-{after}"
        code = "import os\n" + f"export(study_of(folder), to, out, lambda done, total: done == {after} and os._exit(9))"
        child(code, folder, to, out, 0, expect=9)
        cut = snapshot(out)
        assert cut.items() <= whole.items()
        assert len(cut) < len(whole)
        (out / ".missing.csv.0123.tmp").write_bytes(b"half")
        export(study_of(folder), to, out)
        assert snapshot(out) == whole


@pytest.mark.slow
def test_a_killed_export_to_mlflow_leaves_the_store_as_it_was(folder: Path, tmp_path: Path, trap: Trap) -> None:
    """The new store takes the old one's place only when it is whole."""
    out = tmp_path / "out"
    export_in_child(folder, "mlflow", out, trap, count=1)
    before = (out / "mlflow.db").read_bytes()
    code = "import os\nexport(study_of(folder), to, out, lambda done, total: done == 2 and os._exit(9))"
    child(code, folder, "mlflow", out, 0, expect=9)
    assert (out / "mlflow.db").read_bytes() == before
    export_in_child(folder, "mlflow", out, trap)
    assert set(read_mlflow(out)) == {run.run.id for run in DONE}


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("parquet", "pyarrow", "parquet"),
        ("tensorboard", "tensorboard", "tensorboard"),
        ("mlflow", "mlflow", "mlflow"),
        ("mlflow", "sqlalchemy", "mlflow"),
        ("wandb-offline", "wandb", "wandb"),
    ],
)
def test_a_package_that_is_not_installed_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Target, package: str, extra: str
) -> None:
    """What to install, before anything is written."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AnalysisError) as caught:
        export(study_of(folder), to, tmp_path / "out")
    install = f"install it in sweep's own folder: pip install '.[{extra}]'"
    assert str(caught.value) == f"export to {to} needs {package}; {install}"
    assert not (tmp_path / "out").exists()


def test_no_package_is_loaded_that_its_target_does_not_need(folder: Path, tmp_path: Path) -> None:
    """CSV goes without pandas; looking for the targets loads nothing."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom analysis.export import export\n"
        "from analysis.study import Study\nfrom trainer.records.plan import PlannedRun\n"
        f"planned = PlannedRun.model_validate_json({PLAN[0].model_dump_json()!r})\n"
        "export(Study('x', [planned], {}, {planned.run.id: 'no'}), 'csv', Path(sys.argv[1]))\n"
        "heavy = 'pandas matplotlib torch pyarrow tensorboard mlflow wandb numpy'.split()\n"
        "assert not [name for name in heavy if name in sys.modules]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("to", ["csv", "parquet", "tensorboard"])
def test_progress_counts_every_run_and_a_study_without_results_can_be_exported(
    folder: Path, tmp_path: Path, to: Target
) -> None:
    """From 0 to all; with none, there are the files without rows and the list of what is missing."""
    seen: list[tuple[int, int]] = []
    export(study_of(folder), to, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert seen == [(done, 3) for done in range(4)]
    empty = Study("sw", PLAN, {}, {run.run.id: "planned" for run in PLAN})
    paths = export(empty, to, tmp_path / "empty")
    assert len(paths[0].read_text().splitlines()) == 1 + len(PLAN)
    assert len(paths) == (1 if to == "tensorboard" else 3)
