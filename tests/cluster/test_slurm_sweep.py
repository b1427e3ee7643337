"""A sweep on a real Slurm cluster, from its file to its tables: what a user on a login node sees."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import LONG_S, REPOSITORY, Command, metrics, read, wait_for
from slurm_fixtures import LONG, POOLS, slurm_file, states, wait_for_state

from slurm.private_cluster.cluster import PrivateCluster

THESIS = REPOSITORY / "configs" / "thesis.yaml"


@pytest.fixture
def counted(on_slurm: Command, tmp_path: Path) -> Path:
    """Count the calls of Slurm's commands: wrappers before them on PATH write a line each."""
    calls = tmp_path / "calls"
    wrappers = tmp_path / "wrappers"
    wrappers.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr"):
        real = shutil.which(name)
        (wrappers / name).write_text(f'#!/bin/sh\necho {name} >> "{calls}"\nexec {real} "$@"\n')
        (wrappers / name).chmod(0o755)
    on_slurm.environment["PATH"] = f"{wrappers}:{os.environ['PATH']}"
    return calls


def taken(calls: Path) -> Counter[str]:
    """Return the calls since the last look."""
    found = Counter(calls.read_text().split()) if calls.exists() else Counter[str]()
    calls.unlink(missing_ok=True)
    return found


def test_the_whole_study_is_queued_once_each_run_where_its_rule_sends_it(
    slurm: PrivateCluster, on_slurm: Command, counted: Path, thesis_data: Path
) -> None:
    """156 runs, one sbatch a pool, with partition, gres and constraint; again does nothing; cancel cleans up."""
    for node in slurm.nodes():  # nothing is to start: only the queue is looked at
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    call = (THESIS, "--data", thesis_data, "--output", "runs")
    answer = on_slurm("submit", *call, "--yes")
    assert "submit 156 runs" in answer.stderr
    assert taken(counted)["sbatch"] == 3
    document = on_slurm.json("status", *call)
    assert document["counts"] == {"queued": 156}
    assert taken(counted) == {"squeue": 1}

    rows = slurm.run("squeue", "-h", "-r", "-o", "%F %P %b %f %m").replace("gres/", "gres:").split("\n")  # 24.11
    assert set(Counter(rows)) - {""} == {
        f"{array} gpu gres:{gres} {feature} 16G"
        for array, gres, feature in (
            (sorted({row.split()[0] for row in rows if row})[0], "gpu:v100:1", "v100-16gb"),
            (sorted({row.split()[0] for row in rows if row})[1], "gpu:p100:1", "(null)"),
            (sorted({row.split()[0] for row in rows if row})[2], "gpu:v100:1", "v100-32gb"),
        )
    }
    again = on_slurm("submit", *call, "--yes")
    assert "nothing to submit: 156 queued" in again.stderr
    assert "sbatch" not in taken(counted)

    assert "cancelled 156 runs" in on_slurm("cancel", *call, "--yes").stderr
    assert taken(counted)["scancel"] == 3  # by name and number, a name an array
    wait_for(lambda: not slurm.run("squeue", "-h"), "the queue to be empty")
    assert on_slurm.json("status", *call)["counts"] == {"cancelled": 156}


def test_a_short_sweep_goes_from_its_file_to_tables(
    on_slurm: Command, counted: Path, data: Path, tmp_path: Path
) -> None:
    """Submitted, waited for, done on the pools of its rules, with one sbatch a pool; the tables hold every run."""
    rules = [{"when": {"seed": 1}, "pool": "v100"}, {"when": {"seed": 2}, "pool": "p100"}, {"pool": "cpu"}]
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), ratios=(0.5, 1.0), assign=rules, job_target_min=30)
    on_slurm("submit", file, "--yes", "--wait")
    assert taken(counted)["sbatch"] == 3
    runs = tmp_path / "runs" / "study" / "runs"
    results = [read(path / "result.json") for path in sorted(runs.iterdir())]
    assert [result["hardware"]["pool"] for result in results] == ["v100", "p100", "cpu"] * 2
    assert {result["hardware"]["host"] for result in results} <= {"v100-1", "v100-2", "p100-1", "cpu-1"}
    assert all(result["environment"]["slurm_job_id"] for result in results)
    # Short runs share a job: two of each pool.
    assert len({result["environment"]["slurm_job_id"] for result in results}) == 3
    on_slurm("tables", file)
    assert (tmp_path / "runs" / "study" / "tables" / "table-4.9.md").exists()

    taken(counted)
    on_slurm("status", file)
    assert taken(counted) == {}, "a sweep that is done is not asked about"


def test_a_refresh_asks_squeue_once_and_sacct_at_most_once(
    on_slurm: Command, counted: Path, data: Path, tmp_path: Path
) -> None:
    """However many arrays there are; and commands in quick succession share one answer."""
    file = slurm_file(tmp_path, data, seeds=range(1, 7), epochs=LONG, pool=["v100", "p100", "cpu"])
    on_slurm("submit", file, "--yes")
    on_slurm("cancel", file, "small-cifar10-r1.0-s1", "--yes")
    taken(counted)
    on_slurm("status", file)
    first = taken(counted)
    assert first["squeue"] <= 1
    assert first["sacct"] <= 1
    assert set(first) <= {"squeue", "sacct"}
    (tmp_path / "runs" / "study" / "queue.json").unlink()
    on_slurm.runs(file)
    on_slurm.runs(file)  # within a second: that of two commands may be more than an answer's age
    assert taken(counted)["squeue"] == 1
    on_slurm("cancel", file, "--yes")


def test_several_runs_share_one_gpu(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """With runs_per_gpu a job works on as many runs at a time, and asks for as many times their CPUs and memory."""
    file = slurm_file(tmp_path, data, seeds=(1, 2), epochs=LONG, pool="v100", runs_per_gpu=2)
    assert "2 runs in 1 jobs; partition v100, gpu:v100:1; 2 CPUs, 4 GB" in on_slurm("submit", file, "--yes").stderr
    wait_for(lambda: {run["state"] for run in states(on_slurm, file).values()} == {"running"}, "both to run")
    on_slurm("cancel", file, "--yes")
    wait_for(lambda: {run["state"] for run in states(on_slurm, file).values()} == {"cancelled"}, "both to stop")


def test_jobs_like_finished_runs_ask_for_less_time(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """The first run is given what the pool has; a second one of the same kind no more than it is sure to need."""
    file = slurm_file(tmp_path, data)
    first, second = (f"small-cifar10-r1.0-s{seed}" for seed in (1, 2))
    assert ", 60 min" in on_slurm("submit", file, "--yes").stderr
    wait_for_state(on_slurm, file, first, "done", "failed")
    file = slurm_file(tmp_path, data, seeds=(1, 2))
    assert ", 30 min" in on_slurm("submit", file, "--yes").stderr
    assert wait_for_state(on_slurm, file, second, "done", "failed")["state"] == "done"
    bases = {run["id"]: run["basis"] for run in on_slurm.json("plan", file)["runs"]}
    assert bases == {first: "its own time", second: "its own time"}


def test_a_run_has_several_gpus(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """With gpus_per_run a job asks for as many GPUs, CPUs and memory, and its processes share the run's replicas."""
    file = slurm_file(tmp_path, data, pool="v100", gpus_per_run=2)
    assert "1 runs in 1 jobs; partition v100, gpu:v100:2; 2 CPUs, 4 GB" in on_slurm("submit", file, "--yes").stderr
    run_id = "small-cifar10-r1.0-s1"
    wait_for_state(on_slurm, file, run_id, "done")
    result = read(tmp_path / "runs" / "study" / "runs" / run_id / "result.json")
    assert result["hardware"]["stretches"][0]["device"].endswith(" in 2 processes")


def test_an_array_is_throttled_and_cut_at_the_largest_the_cluster_takes(
    make_cluster: Any, data: Path, tmp_path: Path
) -> None:
    """MaxArraySize 4 takes three tasks an array; max_parallel holds for the pool."""
    home = make_cluster()
    home.start(accounting=False, extra=["MaxArraySize=4"])
    sweep = Command("sweep", tmp_path, home.environment)
    for node in home.nodes():
        home.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    file = slurm_file(tmp_path, data, seeds=range(1, 8), max_parallel=3)
    assert "submitted 7 jobs in 3 arrays" in sweep("submit", file, "--yes").stderr
    assert sorted(home.run("squeue", "-h", "-o", "%K").split()) == ["0%1", "0-2%1", "0-2%1"]
    assert sweep.json("status", file)["counts"] == {"queued": 7}
    sweep("cancel", file, "--yes")


def test_logs_and_watch_follow_a_run_to_its_end(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """`logs` says where a queued run waits, then prints and follows its log; `watch` ends with the sweep."""
    file = slurm_file(tmp_path, data, epochs=4)
    run_id = "small-cifar10-r1.0-s1"
    on_slurm("submit", file, "--yes")
    wait_for_state(on_slurm, file, run_id, "running", "done")
    assert "epoch 4/4" in on_slurm("logs", file, run_id, "--follow").stdout
    assert on_slurm("watch", file).returncode == 0


def test_the_run_that_died_unnoticed_is_named_and_retried_with_more_memory(
    on_slurm: Command, thesis_data: Path, tmp_path: Path
) -> None:
    """ResNet-18, TinyImageNet, 1.0, seed 42: out of memory; named with cause, node and log; retried alone with more."""
    small = {**POOLS["v100"], "memory_gb": 0.9}  # a step of it takes 1.2 GB
    pools = {"small": small, "cpu": POOLS["cpu"]}
    bad = {"dataset": "tinyimagenet", "ratio": 1.0, "seed": 42}
    rules = [{"when": bad, "pool": "small"}, {"pool": "cpu"}]
    file = slurm_file(tmp_path, thesis_data, architecture="resnet18", pools=pools, assign=rules)
    sweep = read(file)
    sweep["grid"] |= {"dataset": ["cifar10", "tinyimagenet"], "ratio": [0.1, 1.0], "seed": [42]}
    sweep["training"] |= {"epochs": 1, "batch_size": 32}
    file.write_text(json.dumps(sweep))
    run_id = "resnet18-tinyimagenet-r1.0-s42"
    on_slurm("submit", file, "--yes", "--wait", expect=3)
    answer = on_slurm.json("status", file, "--failed")
    assert [(run["id"], run["cause"]) for run in answer["runs"]] == [(run_id, "host_oom")]
    failed = answer["runs"][0]
    assert failed["node"] in ("v100-1", "v100-2")
    assert Path(failed["log"]).exists()

    said = on_slurm("retry", file, "--yes", "--dry-run").stderr
    assert f"{run_id}: starts again with 1.8 GB of memory instead of 0.9" in said
    assert "would submit 1 runs" in said
    on_slurm("retry", file, "--yes", "--wait")
    assert states(on_slurm, file)[run_id]["state"] == "done"
    on_slurm("tables", file)
    tables = (tmp_path / "runs" / "study" / "tables" / "table-4.5.md").read_text()
    assert run_id not in tables
    assert metrics(tmp_path / "runs" / "study" / "runs" / run_id / "result.json")


def test_a_new_user_types_init_and_submit(on_slurm: Command, tmp_path: Path) -> None:
    """On a cluster whose GPUs are stand-ins: a probe in each pool finds none, and what is written runs as it stands."""
    said = on_slurm("init")
    assert said.stdout == "cluster.yaml\nsweep.yaml\n"
    assert "nvidia-smi shows no GPU on its nodes" in said.stderr
    assert "problem" not in on_slurm("doctor", "--no-probe").stdout
    submit = on_slurm.start("submit", "--yes", "--wait")  # four of ResNet-18, one after another on a busy machine
    assert "4 done" in submit.communicate(timeout=2 * LONG_S)[1]
    assert read(tmp_path / "runs" / "first" / "runs" / "resnet18-cifar10-r0.5-s42" / "result.json")["hardware"]["pool"]


def test_the_quickstart_runs_on_a_cluster_that_its_file_does_not_name(
    on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """The shipped file as it stands: its runs are spread over the pools of the private cluster's file."""
    quickstart = REPOSITORY / "configs" / "quickstart.yaml"
    call = (quickstart, "--data", data, "--output", tmp_path / "runs")
    assert "submitted" in on_slurm("submit", *call, "--cluster", "local", "--yes").stderr
    arrays = read(next((tmp_path / "runs" / "quickstart" / "submissions").glob("*.json")))["arrays"]
    assert {array["pool"] for array in arrays} == {"v100-16gb", "p100-12gb", "v100-32gb", "cpu"}
    on_slurm("cancel", *call, "--yes")
