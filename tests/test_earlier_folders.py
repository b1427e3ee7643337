"""A sweep's folder that an earlier version wrote opens: every command finds in it what that version left.

tests/fixtures/folder_0_1 is such a folder, its README says how each run came to its state. Only commands and what they
print are asked, so that no move of a module inside the program changes this file.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from table_reading import cells

FOLDER = Path(__file__).parent / "fixtures" / "folder_0_1"
TOKEN = "0ff1e7e9"  # noqa: S105  # the first part of the submissions' names, no secret
RES_C, RES_T, VIT_C, VIT_T = "resnet18-cifar10", "resnet18-tinyimagenet", "vit-cifar10", "vit-tinyimagenet"
RATE, HIGH_RATE = (f"{RES_C}-r0.5-s42-learning_rate={rate}" for rate in ("0.001", "1e+30"))
DAMAGED = f"{RES_C}-r1.0-s43"
RESUMED = f"{RES_C}-r1.0-s42"
STOPPED, KILLED = f"{VIT_C}-r0.5-s42", f"{VIT_C}-r0.5-s43"
RAISED, NOT_LAUNCHED = f"{VIT_C}-r1.0-s42", f"{VIT_C}-r1.0-s43"
QUEUED, CANCELLED = f"{VIT_T}-r0.5-s42", f"{VIT_T}-r0.5-s43"
CANCELLED_IN_WORK, RUNNING = f"{VIT_T}-r1.0-s42", f"{VIT_T}-r1.0-s43"
RESERVE = f"runs/{KILLED}/.reserve.5afb6acbc9de.tmp"

CUT = f"runs/study/runs/{DAMAGED}/result.json: damaged: its checksum does not match, so it is not as it was written"
NO_ARRAY = (
    "DataError: /srv/sweep-0.1/study/data/cifar10/train_images.npy: cannot be read (mmap length is greater than file "
    "size); remove /srv/sweep-0.1/study/data/cifar10 and prepare it again with 'sweep data prepare cifar10'"
)
NO_NODE = (
    "the nodes it could use are down, drained or reserved: waits until they return, see 'sinfo -R' (Slurm: Nodes "
    "required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions)"
)
NOT_ON_PATH = "squeue is not on PATH; is this a login node?"
ANSWERED = "2026-11-26T15:23:50.003000"  # when Slurm last told of the jobs

SHOWN = ("state", "cause", "message", "epoch", "attempt", "job", "node", "best_val_accuracy", "updated")
PLANNED = ("planned", None, None, 0, 0, None, None, None, None)
RECIPE, DATASET = (f"done, with another {what} than the plan's" for what in ("recipe", "dataset"))
STUDY: dict[str, tuple[Any, ...]] = {
    f"{RES_C}-r0.5-s42": ("done", None, None, 3, 1, "4_3", "cpu-1", 0.15, "15:21:41.715"),
    f"{RES_C}-r0.5-s43": ("done", None, None, 3, 1, "4_4", "cpu-1", 0.225, "15:21:40.891"),
    f"{RES_C}-r0.5-s44": PLANNED,
    RESUMED: ("done", None, None, 3, 2, "10_0", "cpu-1", 0.275, "15:22:01.027"),
    DAMAGED: ("failed", "exception", f"finished, but {CUT}", 3, 1, "4_2", "cpu-1", 0.2, "15:21:43.947"),
    f"{RES_C}-r1.0-s44": PLANNED,
    f"{RES_T}-r0.5-s42": ("done", None, None, 3, 1, "4_0", "cpu-1", 0.35, "15:21:46.827"),
    f"{RES_T}-r0.5-s43": ("done", None, None, 3, 1, "9_0", "cpu-1", 0.2, "15:22:02.995"),
    f"{RES_T}-r0.5-s44": PLANNED,
    f"{RES_T}-r1.0-s42": ("stale", None, RECIPE, 2, 1, "2_0", "cpu-1", 0.25, "15:20:34.991"),
    f"{RES_T}-r1.0-s43": ("stale", None, DATASET, 3, 1, "3_0", "cpu-1", 0.3, "15:20:40.906"),
    f"{RES_T}-r1.0-s44": PLANNED,
    STOPPED: ("interrupted", "killed", "stopped by SIGTERM", 1, 1, "11_0", "cpu-1", 0.125, "15:22:28.070"),
    KILLED: ("interrupted", "killed", "killed by SIGKILL", 1, 1, "11_1", "cpu-1", 0.125, "15:22:23.487"),
    f"{VIT_C}-r0.5-s44": PLANNED,
    RAISED: ("failed", "exception", NO_ARRAY, 0, 1, "13_0", "cpu-1", None, "15:22:42.484"),
    NOT_LAUNCHED: ("failed", "launch_failed", "no module python", 0, 0, "14_0", "cpu-1", None, None),
    f"{VIT_C}-r1.0-s44": PLANNED,
    QUEUED: ("queued", None, NO_NODE, 0, 0, "15_0", None, None, None),
    CANCELLED: ("cancelled", None, None, 0, 0, None, None, None, None),
    f"{VIT_T}-r0.5-s44": PLANNED,
    CANCELLED_IN_WORK: ("cancelled", None, "stopped by SIGTERM", 1, 1, "16_0", "v100-1", 0.3, "15:23:43.551"),
    RUNNING: ("running", None, None, 1, 1, "16_1", "v100-1", 0.3, "15:23:41.216"),
    f"{VIT_T}-r1.0-s44": PLANNED,
}
DIVERGED = "DivergedError: validation loss is nan in epoch 0"
RATES: dict[str, tuple[Any, ...]] = {
    RATE: ("done", None, None, 2, 1, "75ba36e5-0001-1", "study.invalid", 0.125, "15:23:09.038"),
    HIGH_RATE: ("failed", "diverged", DIVERGED, 0, 2, "75ba36e5-0002-1", "study.invalid", None, "15:23:25.169"),
}
COUNTS = {
    "done": 5,
    "running": 1,
    "queued": 1,
    "interrupted": 2,
    "failed": 3,
    "cancelled": 2,
    "stale": 2,
    "planned": 8,
}

# What Slurm might say a while after: the job that waited has begun, the node of the one that ran is dead.
SLURM = {
    "sbatch": "exit 1",
    "squeue": """echo "ARRAY_JOB_ID|ARRAY_TASK_I|STATE"
  """
    f'echo "15|0|RUNNING|None|p100-1|0|1795706608|1795706700|1795712100|0|0|study.{TOKEN}-0010.0"',
    "sacct": """echo "JobID|State|ExitCode"
  """
    f'echo "16_1|NODE_FAIL|1:0|0:0|v100-1|1795706611|1795706612|1795706900|None|study.{TOKEN}-0011.0"',
    "sacctmgr": "exit 1",
    "sinfo": """for row in "v100|up|infinite|2|16|64000|gpu:v100:4" "p100|up|infinite|1|16|64000|gpu:p100:4" \\
  "cpu|up|infinite|1|16|64000|(null)"; do echo "$row|(null)|idle"; done""",
    "scontrol": """case "$*" in
ping) echo "Slurmctld(primary) at localhost is UP";;
"show config") echo "MaxArraySize = 1001";;
*) for name in v100 p100 cpu; do echo "PartitionName=$name MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED"; done;;
esac""",
}

Open = Callable[..., Command]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Copy the folder and give `python -m sweep` in the copy, on a machine whose PATH holds these commands alone."""
    commands: list[Command] = []

    def open_copy(path: dict[str, str] | None = None) -> Command:
        folder = tmp_path / "elsewhere"
        shutil.copytree(FOLDER, folder)
        for unfinished in folder.rglob("*.tmp"):
            os.utime(unfinished, (0, 0))  # git keeps no times
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir()
        for name, script in (path or {}).items():
            (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (bin_folder / name).chmod(0o755)
        commands.append(Command("sweep", folder, {"PATH": str(bin_folder)}))
        return commands[-1]

    yield open_copy
    for command in commands:
        command.end()


def by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {run["id"]: run for run in document["runs"]}


def told(run: dict[str, Any]) -> tuple[Any, ...]:
    """Return what SHOWN names of a run of `status --json`, and of its last sign the time of day."""
    updated = run["updated"]
    assert updated is None or updated.startswith("2026-11-26T")
    return (*(run[name] for name in SHOWN[:-1]), updated and updated[11:23])


def on_disk(folder: Path, name: str) -> Any:
    """Read a file of the kept folder as it lies there."""
    return json.loads((FOLDER / folder / name).read_text())


def columns(path: Path, *names: str) -> list[tuple[str, ...]]:
    """Read some columns of a CSV file."""
    with path.open(newline="") as file:
        return [tuple(row[name] for name in names) for row in csv.DictReader(file)]


def reasons(tables: Path) -> dict[str, str]:
    """Read why each run is not in the tables, "" for one that is."""
    return {row[0]: row[1] for row in columns(tables / "provenance.csv", "run", "reason")}


def test_every_run_stands_as_it_was_left(opened: Open) -> None:
    """State, cause, message, epochs, attempts, job, node and times of each run; without Slurm, its last word holds."""
    sweep = opened()
    document = sweep.json("status", "study.yaml")
    runs = by_id(document)
    assert {name: told(run) for name, run in runs.items()} == STUDY
    assert document["counts"] == COUNTS
    assert list(runs) == list(STUDY)  # the grid's order
    as_known = {name for name, run in runs.items() if run["problem"]}
    assert as_known == {QUEUED, RUNNING}
    for name in as_known:
        assert runs[name]["problem"] == NOT_ON_PATH
        assert runs[name]["stale_since"].startswith(ANSWERED)
    for name in ("squeue", "sacct"):
        assert document["slurm"][name]["answered"].startswith(ANSWERED)
    assert runs[DAMAGED]["passing"]
    assert runs[RAISED]["frame"] == "prepared.py:188 in _load"


def test_a_pipe_gets_the_same(opened: Open) -> None:
    """The lines of `status` say of each run what its JSON says, and where in the copy its log lies."""
    sweep = opened()
    answer = sweep("status", "study.yaml", "--exit-code", expect=3)
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in answer.stdout.splitlines()}
    for name, (state, cause, message, epoch, attempt, *_, best, _) in STUDY.items():
        log = f"runs/study/runs/{name}/logs/attempt-{attempt:04d}.log" if attempt else "-"
        if name == NOT_LAUNCHED:
            log = f"runs/study/submissions/{TOKEN}-0009/1/14_0_0_log.out"
        accuracy = "-" if best is None else f"{best:.4f}"
        assert lines[name] == [state, f"{epoch}/3", accuracy, cause or "-", message or "-", log], name
        assert log == "-" or (sweep.folder / log).is_file()
    assert "2 runs are shown as last known" in answer.stderr


def test_the_plan_takes_its_times_from_the_results(opened: Open) -> None:
    """Pools and images from sweep file and manifests; a done run's time is its own, others' are learnt from it."""
    runs = by_id(opened().json("plan", "study.yaml"))
    assert {name: run["state"] for name, run in runs.items()} == {name: told[0] for name, told in STUDY.items()}
    images = {"cifar10": {0.5: 40, 1.0: 80}, "tinyimagenet": {0.5: 30, 1.0: 60}}
    assert all(run["train_samples"] == images[run["dataset"]][run["ratio"]] for run in runs.values())
    pools = {name: run["pool"] for name, run in runs.items()}
    assert pools[DAMAGED] == pools[STOPPED] == "cpu"
    assert (pools[NOT_LAUNCHED], pools[QUEUED], pools[RUNNING]) == ("broken", "p100", "v100")
    basis = {name: run["basis"] for name, run in runs.items()}
    own = {name for name, words in basis.items() if words == "its own time"}
    assert own == {name for name, told in STUDY.items() if told[0] == "done"} | {f"{RES_T}-r1.0-s43"}
    for name in own - {RESUMED}:
        result = on_disk(Path("runs/study/runs") / name, "result.json")
        assert runs[name]["estimate_s"] == round(result["timing"]["total_seconds"], 1)
    assert basis[DAMAGED] == "its own epochs"  # of progress.json, for the result cannot be read
    assert basis[f"{RES_C}-r1.0-s44"] == "3 finished runs"
    assert basis[f"{RES_T}-r1.0-s44"] == "4 finished runs"
    assert basis[STOPPED] == "7 finished runs of another architecture"
    assert basis[QUEUED] == "operations"


@pytest.mark.slow
def test_what_is_left_is_what_would_be_executed(opened: Open) -> None:
    """Retry and submit choose by what the folder says, and cleaning finds what was set aside and half-written."""
    sweep = opened()
    retried = sweep("retry", "study.yaml", "--dry-run").stderr
    assert f"{STOPPED} and 1 more: goes on after epoch 1\n" in retried
    assert f"{RAISED}: raised an exception and would again" in retried
    assert f"{NOT_LAUNCHED}: starts again\n" in retried
    assert "would execute 4 runs" in retried
    assert "would execute 5 runs" in sweep("retry", "study.yaml", "--failed", "--dry-run").stderr
    assert "would execute 14 runs" in sweep("submit", "study.yaml", "--stale", "--dry-run").stderr
    assert (
        "would cancel 4 runs (1 running, 1 queued, 2 interrupted)" in sweep("cancel", "study.yaml", "--dry-run").stderr
    )
    freed = sweep("clean", "study.yaml", "--superseded", "--dry-run").stderr
    assert "half-written files of killed processes: 1 file" in freed
    assert "1 run folders in superseded/: 5 files" in freed


def test_the_tables_hold_the_results(opened: Open) -> None:
    """Every number of the done runs, the means over them, and of each other run why it is missing."""
    sweep = opened()
    assert "19 of 24 runs are missing" in sweep("tables", "study.yaml").stderr
    tables = sweep.folder / "runs" / "study" / "tables"
    assert cells(tables / "table-4.5.csv") == [
        ["Metric / Dataset Ratio", "0.5", "1.0"],
        ["Val Acc (S42)", "0.15", "0.28"],
        ["Val Acc (S43)", "0.23", "-inf"],
        ["Val Acc (S44)", "-inf", "-inf"],
        ["Epoch (Val Acc) (S42)", "2", "2"],
        ["Epoch (Val Acc) (S43)", "1", "nan"],
        ["Epoch (Val Acc) (S44)", "nan", "nan"],
        ["Val Loss (S42)", "2.29", "2.24"],
        ["Val Loss (S43)", "2.23", "inf"],
        ["Val Loss (S44)", "inf", "inf"],
        ["Epoch (Val Loss) (S42)", "2", "2"],
        ["Epoch (Val Loss) (S43)", "2", "nan"],
        ["Epoch (Val Loss) (S44)", "nan", "nan"],
        ["Train Acc (S42)", "0.19", "0.31"],
        ["Train Acc (S43)", "0.38", "-inf"],
        ["Train Acc (S44)", "-inf", "-inf"],
        ["Epoch (Train Acc) (S42)", "2", "2"],
        ["Epoch (Train Acc) (S43)", "2", "nan"],
        ["Epoch (Train Acc) (S44)", "nan", "nan"],
        ["Train Loss (S42)", "2.14", "1.93"],
        ["Train Loss (S43)", "2.00", "inf"],
        ["Train Loss (S44)", "inf", "inf"],
        ["Epoch (Train Loss) (S42)", "2", "2"],
        ["Epoch (Train Loss) (S43)", "2", "nan"],
        ["Epoch (Train Loss) (S44)", "nan", "nan"],
    ]
    assert cells(tables / "table-4.5-mean.csv")[1:] == [
        ["0.5", "40", "0.19 ± 0.05*", "2.26 ± 0.04*", "0.28 ± 0.13*", "2.07 ± 0.10*", "2 of 3"],
        ["1.0", "80", "0.28*", "2.24*", "0.31*", "1.93*", "1 of 3"],
    ]
    assert cells(tables / "table-4.7-mean.csv")[1][2:] == [
        "0.28 ± 0.11*",
        "1.73 ± 0.18*",
        "0.78 ± 0.09*",
        "0.64 ± 0.05*",
        "2 of 3",
    ]
    assert reasons(tables) == {name: expected_reason(name) for name in STUDY}
    origin = dict.fromkeys(columns(tables / "provenance.csv", "used", "git_state", "torch", "cpu", "pool"))
    assert list(origin) == [("True", "ed898183e0c8", "2.7.1+cu126", "AMD EPYC", "cpu"), ("False", "", "", "", "")]
    attempts = {
        name: (number, job) for name, number, job in columns(tables / "provenance.csv", "run", "attempts", "job")
    }
    assert attempts[RESUMED] == ("2", "10_0")


def expected_reason(name: str) -> str:
    """Return the reason why a run is not in the tables, "" for one that is."""
    state, cause, message, epoch, *_ = STUDY[name]
    words = f"{state}, {cause}" if cause else state
    if state == "done":
        return ""
    if state in ("running", "interrupted", "cancelled"):
        return f"{words} after epoch {epoch} of 3"
    return f"{words}: {message.replace('runs/study/', '')}" if state in ("failed", "stale") else words


@pytest.mark.slow
def test_stale_results_can_be_read_too(opened: Open) -> None:
    """Of another recipe and another dataset: --allow-mixed lets them in, with their numbers."""
    sweep = opened()
    assert "17 of 24 runs are missing" in sweep("tables", "study.yaml", "--allow-mixed").stderr
    summary = sweep.folder / "runs" / "study" / "tables" / "summary.csv"
    names = ("architecture", "dataset", "ratio", "metric", "n", "min", "max")
    accuracies = {row[:3]: row[4:] for row in columns(summary, *names) if row[3] == "val_accuracy"}
    assert accuracies["resnet18", "tinyimagenet", "1.0"] == ("2", "0.25", "0.3")


@pytest.mark.slow
def test_every_epoch_is_read(opened: Open) -> None:
    """The export holds the whole history of each done run, number for number."""
    sweep = opened()
    sweep("export", "study.yaml", "--to", "csv")
    history = sweep.folder / "runs" / "study" / "export" / "csv" / "history.csv"
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in (name for name, told in STUDY.items() if told[0] == "done"):
        written = on_disk(Path("runs/study/runs") / name, "result.json")["history"]
        mine = [row for row in rows if row["id"] == name]
        assert len(mine) == 3
        for metric in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"):
            assert [float(row[metric]) for row in mine] == written[metric], (name, metric)


def test_verify_finds_what_is_wrong_and_nothing_else(opened: Open) -> None:
    """The cut result and the half-written file of a killed trainer; every other file is as it was written."""
    findings = opened().json("verify", "study.yaml", expect=3)["findings"]
    assert findings == [
        {
            "kind": "damaged",
            "path": f"runs/{DAMAGED}/result.json",
            "what": "is not as it was written: its checksum does not match",
            "remedy": f"move it out of the sweep's folder, then 'sweep retry study.yaml {DAMAGED}' trains it again",
            "run": DAMAGED,
        },
        {
            "kind": "half-written",
            "path": RESERVE,
            "what": "was being written when its writer was killed",
            "remedy": "nothing is lost; 'sweep clean study.yaml' removes it when it is an hour old",
            "run": KILLED,
        },
    ]


def test_verify_reads_every_kind_of_file(opened: Open) -> None:
    """One of each with one digit changed is found: the silence on the others is worth something."""
    sweep = opened()
    damaged = [
        "plan.json",
        f"submissions/{TOKEN}-0010.json",
        f"submissions/{TOKEN}-0010/0/bundle.json",
        f"runs/{STOPPED}/run.json",
        f"runs/{STOPPED}/progress.json",
        f"runs/{RESUMED}/result.json",
        f"runs/{RESUMED}/attempts/0001.json",
        f"runs/{RAISED}/error.json",
        f"runs/{CANCELLED}/cancel.json",
        f"runs/{KILLED}/checkpoints/epoch-000001.safetensors",
        "queue.json",
    ]
    for name in damaged:
        path = sweep.folder / "runs" / "study" / name
        content = bytearray(path.read_bytes())
        place = len(content) - 1 if path.suffix == ".safetensors" else content.index(b"_version") + len('_version": ')
        content[place] ^= 1
        path.write_bytes(content)
    findings = sweep.json("verify", "study.yaml", expect=3)["findings"]
    found = {finding["path"]: finding["remedy"] for finding in findings if finding["kind"] == "damaged"}
    assert set(found) == {*damaged, f"runs/{DAMAGED}/result.json"}
    assert "goes on from its checkpoint" in found[f"runs/{STOPPED}/progress.json"]  # which was read, and is whole
    assert "from the first epoch" in found[f"runs/{KILLED}/checkpoints/epoch-000001.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([RESUMED], ["attempt 2 on cpu, fp32: 80 training images", "epoch 2/3", "epoch 3/3", "1 checkpoints"]),
        ([RESUMED, "--attempt", "1"], ["attempt 1 on cpu", "epoch 1/3", "stopped by SIGTERM after 1 epochs"]),
        ([NOT_LAUNCHED], ["no module python"]),
    ],
    ids=["the newest attempt", "an earlier attempt", "a job that died before its run began"],
)
def test_logs_are_found(opened: Open, arguments: Sequence[str], lines: Sequence[str]) -> None:
    """Of attempts, and of a job whose run never began; wherever the folder lies now."""
    printed = opened()("logs", "study.yaml", *arguments).stdout.splitlines()
    assert len(printed) == len(lines)
    assert all(expected in line for expected, line in zip(lines, printed, strict=True))


def test_slurm_is_asked_about_the_jobs_it_was_sent(opened: Open) -> None:
    """The job that waited has begun, the other's node died: retry sends its run to another node of the same pool."""
    sweep = opened(SLURM)
    runs = by_id(sweep.json("status", "study.yaml"))
    changed = {name: told(run) for name, run in runs.items() if told(run) != STUDY[name]}
    lost = "its node failed (Slurm: NODE_FAIL)"
    assert changed == {
        QUEUED: (
            "starting",
            None,
            "its job runs on p100-1, and has not reported yet",
            0,
            0,
            "15_0",
            "p100-1",
            None,
            None,
        ),
        RUNNING: ("interrupted", "node_fail", lost, 1, 1, "16_1", "v100-1", 0.3, "15:23:41.216"),
    }
    assert not any(run["problem"] for run in runs.values())
    retried = sweep("retry", "study.yaml", "--dry-run").stderr
    assert f"{RUNNING}: goes on after epoch 1 on another node than v100-1\n" in retried
    assert f"{NOT_LAUNCHED}: starts again, on cpu-1 too, for the partition has no other node\n" in retried
    assert "v100: 1 runs in 1 jobs; partition v100, gpu:v100:1; 1 CPUs, 2 GB, 60 min, not on v100-1" in retried
    assert "broken: 1 runs in 1 jobs; partition cpu; 1 CPUs, 4 GB" in retried


@pytest.mark.slow
def test_a_sweep_of_local_workers_opens(opened: Open) -> None:
    """Runs named by their learning rate: one done, one that diverged twice; all files whole."""
    sweep = opened()
    assert {name: told(run) for name, run in by_id(sweep.json("status", "rates.yaml")).items()} == RATES
    plan = by_id(sweep.json("plan", "rates.yaml"))
    assert {name: (run["pool"], run["basis"]) for name, run in plan.items()} == {
        RATE: ("local", "its own time"),
        HIGH_RATE: ("local", "1 finished run"),
    }
    assert sweep.json("verify", "rates.yaml")["findings"] == []
    assert f"{HIGH_RATE}: diverged and would again" in sweep("retry", "rates.yaml", "--dry-run").stderr
    sweep("tables", "rates.yaml")
    tables = sweep.folder / "runs" / "rates" / "tables"
    assert cells(tables / "table-4.5-mean-learning_rate=0.001.csv")[1] == [
        "0.5",
        "40",
        "0.12",
        "2.30",
        "0.12",
        "2.26",
        "1",
    ]
    assert reasons(tables) == {RATE: "", HIGH_RATE: f"failed, diverged: {DIVERGED}"}
