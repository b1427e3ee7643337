"""Every way a job can fail on a real cluster, from `sweep submit` to what `sweep status` then says of the run."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, metrics, read, wait_for
from rich.console import Console
from slurm_fixtures import LONG, POOLS, slurm_file
from slurm_runs import (
    ENDED,
    Frozen,
    all_ended,
    by_seed,
    folder_of,
    hold_at_checkpoint,
    trainer_of,
    wait_for_all,
    wait_for_checkpoints,
    with_parent,
)

from slurm.private_cluster.cluster import PrivateCluster
from slurm.workers import count_oom_kills
from sweep.cli.tables import failures
from sweep.status.state import RunStatus, State
from trainer.records.attempt import Cause
from trainer.records.run import Run

CPU = POOLS["cpu"]
GONE_ON_S = 60.0
BEFORE_IT_BEGAN: dict[str, tuple[dict[str, Any], str, str]] = {
    "the job script ends by itself": ({"setup": ["exit 3"]}, "launch_failed", "at 'exit 3' (Slurm: FAILED 3:0)"),
    "there is no srun": ({"setup": ["export PATH=/nowhere"]}, "launch_failed", "srun: command not found"),
    "there is no Python": (
        {"setup": ["srun() { command srun /no/such/python; }"]},
        "launch_failed",
        "execve(): /no/such/python: No such file or directory",
    ),
    "there is no such module": (
        {"modules": ["no/such"]},
        "launch_failed",
        "at 'module load no/such' (exit code ",
    ),
    "a setup line fails": (
        {"setup": ["cd /", "echo that is all; source venv/activate", "touch /tmp/never"]},
        "launch_failed",
        "at 'echo that is all; source venv/activate' (exit code 1): that is all / ",
    ),
    "memory is too small for torch": ({"memory_gb": 0.2}, "host_oom", "exceeded"),
}


def test_a_job_that_dies_before_its_run_begins_says_why(on_slurm: Command, data: Path, tmp_path: Path) -> None:
    """Exit code, missing commands, memory: failed, each with its cause, Slurm's evidence, job, node and log."""
    pools = {f"pool{seed}": {**CPU, **case[0]} for seed, case in enumerate(BEFORE_IT_BEGAN.values())}
    rules = [{"when": {"seed": seed}, "pool": f"pool{seed}"} for seed in range(len(pools))]
    file = slurm_file(
        tmp_path, data, seeds=range(len(pools)), pools=pools, assign=rules, epochs=200
    )  # Slurm looks at times
    on_slurm("submit", file, "--yes")
    found = wait_for_all(on_slurm, file, all_ended, "every job to die")
    for seed, (name, (_, cause, words)) in enumerate(BEFORE_IT_BEGAN.items()):
        assert (found[seed]["state"], found[seed]["cause"]) == ("failed", cause), name
        assert words.lower() in found[seed]["message"].lower(), name
        assert found[seed]["job"], name
        assert found[seed]["node"] == "cpu-1", name
        assert Path(found[seed]["log"]).exists(), name


def test_an_exception_and_a_divergence_name_the_line_and_are_told_once(
    on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Data that went between submit and start, and a learning rate that blows up: cause, message, last frame."""
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    file = slurm_file(tmp_path, copied, seeds=(1, 2), name="broken", pool="v100")
    wild = slurm_file(tmp_path, data, name="wild", pools=POOLS)
    sweep = read(wild)
    sweep["training"]["learning_rate"] = 1e30
    wild.write_text(json.dumps(sweep))
    on_slurm("submit", file, "--yes")
    for path in copied.glob("cifar10/*.npy"):
        path.unlink()
    on_slurm("submit", wild, "--yes")
    diverged = wait_for_all(on_slurm, wild, all_ended, "the wild run to fail")[1]
    assert (diverged["state"], diverged["cause"]) == ("failed", "diverged")
    assert " in " in diverged["frame"]
    found = wait_for_all(on_slurm, file, all_ended, "both runs to fail")
    assert {(run["state"], run["cause"]) for run in found.values()} == {("failed", "exception")}
    assert len({(run["message"], run["frame"]) for run in found.values()}) == 1, "alike, so that they are told once"
    assert "npy" in found[1]["message"]


def test_whatever_ends_a_running_job_the_run_is_told_truly(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Killed in part, killed whole, cancelled, warned of its limit, at its limit, hung at its limit with and without
    a checkpoint. What was warned goes on by itself, what hung is interrupted, or failed where it came no further.

    The one that is warned has the array's own job id: it goes back into the queue, and no other of the array does.
    """
    file = slurm_file(tmp_path, data, seeds=range(1, 8), epochs=LONG, saves=True)
    on_slurm("submit", file, "--yes")
    folders = {seed: folder_of(tmp_path, seed) for seed in range(1, 8)}
    warned = _with_the_array_s_id(slurm, tmp_path)
    others = [seed for seed in range(1, 8) if seed != warned]
    trainer_killed, task_killed, cancelled, at_limit, hung, stuck = others
    wait_for(lambda: trainer_of(folders[stuck]) is not None, "the last run to start")
    stuck_pids = with_parent(trainer_of(folders[stuck]))
    with Frozen(stuck_pids):
        hold_at_checkpoint([folders[seed] for seed in range(1, 8) if seed != stuck])
        before = by_seed(on_slurm, file)
        assert {run["state"] for run in before.values()} == {"running"}
        jobs = {seed: run["job"] for seed, run in before.items()}
        pids = {seed: with_parent(trainer_of(folder)) for seed, folder in folders.items()}
        os.kill(pids[trainer_killed][0], signal.SIGKILL)
        for pid in reversed(pids[task_killed]):
            os.kill(pid, signal.SIGKILL)
        slurm.run("scancel", jobs[cancelled])  # which Slurm wakes up for it
        for seed in (warned, at_limit):
            os.kill(pids[seed][0], signal.SIGCONT)
        slurm.run("scontrol", "update", f"jobid={jobs[warned]}", "EndTime=now+60seconds")
        for seed in (at_limit, hung, stuck):
            slurm.run("scontrol", "update", f"jobid={jobs[seed]}", "EndTime=now+1seconds")
        with Frozen(pids[hung]):
            found = wait_for_all(
                on_slurm,
                file,
                lambda now: (
                    all(now[seed]["state"] in ENDED for seed in (*others[:3], hung, stuck))
                    and now[warned]["attempt"] >= 2
                    and (now[at_limit]["attempt"] >= 2 or now[at_limit]["state"] in ENDED)
                ),
                "every job to end or to go on",
            )
    assert {found[seed]["attempt"] for seed in others if seed != at_limit} == {1}
    told = {seed: (run["state"], run["cause"]) for seed, run in found.items()}
    assert told[trainer_killed] == ("interrupted", "killed")
    assert found[trainer_killed]["message"] == "killed by SIGKILL"
    assert told[task_killed] == ("interrupted", "killed")
    assert "was killed by SIGKILL" in found[task_killed]["message"]
    assert told[cancelled] == ("cancelled", None)
    assert told[hung] == ("interrupted", "timeout")
    assert found[hung]["epoch"] >= 1
    assert told[stuck] == ("failed", "timeout")
    # Warned and limited in one sweep of slurmctld's: where the step in work takes longer than KillWait, it is killed.
    in_time = found[at_limit]["attempt"] >= 2
    assert in_time or told[at_limit] == ("interrupted", "timeout")
    for seed in (warned, at_limit) if in_time else (warned,):
        first = read(folders[seed].attempt(1))
        # At the limit SIGTERM comes as well; before the warning, at times (26.05).
        signals = ("SIGUSR2", "SIGTERM") if seed == at_limit else ("SIGUSR2",)
        assert first["outcome"] == "interrupted"
        assert first["message"] in [f"stopped by {name}" for name in signals]
        assert found[seed]["state"] in ("running", "queued")
        assert found[seed]["job"] == jobs[seed]
        wait_for(lambda seed=seed: read(folders[seed].attempt(2))["start_epoch"] >= 1, "a start from the checkpoint")
    on_slurm("cancel", file, "--yes")


def _with_the_array_s_id(slurm: PrivateCluster, tmp_path: Path) -> int:
    """Wait until the jobs of the only array are there one by one; returns the seed of the one with the array's id."""
    rows: list[list[str]] = []

    def all_there() -> bool:
        rows[:] = [row.split() for row in slurm.run("squeue", "-h", "-t", "R", "-o", "%A %F %K").splitlines()]
        return len(rows) == len(_tasks(tmp_path))

    wait_for(all_there, "every job of the array to run")
    (task,) = (int(task) for job, array, task in rows if job == array)
    (seed,) = _tasks(tmp_path)[task]
    return seed


def test_what_slurm_takes_away_goes_on_by_itself_to_the_same_result(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Preempted with a grace time and without one, and on a node that goes down: queued, then done, by itself, with
    the history of a run that nothing disturbed."""
    graced, at_once, on_node = 1, 2, 3
    rules = [{"when": {"seed": 1}, "pool": "p100"}, {"when": {"seed": 2}, "pool": "cpu"}, {"pool": "v100"}]
    epochs = 4
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), epochs=epochs, assign=rules, saves=True)
    on_slurm("submit", file, "--yes")
    folders = {seed: folder_of(tmp_path, seed) for seed in (graced, at_once, on_node)}
    hold_at_checkpoint(list(folders.values()))
    for node in ("p100-1", "cpu-1"):
        slurm.run(
            "sbatch", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"
        )
    node = by_seed(on_slurm, file)[on_node]["node"]
    slurm.kill_node(node)
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")  # at once, not when it is missed
    seen: dict[int, set[str]] = {seed: set() for seed in folders}

    def all_queued_since() -> bool:
        for seed, run in by_seed(on_slurm, file).items():
            seen[seed].add(run["state"])
        return all("queued" in states_seen for states_seen in seen.values())

    wait_for(all_queued_since, "each run to be back in the queue")
    reference = slurm_file(tmp_path, data, seeds=(1, 2, 3), epochs=epochs, pool="v100", name="undisturbed")
    on_slurm("submit", reference, "--yes")
    found = wait_for_all(on_slurm, file, all_ended, "the runs to go on to their end", GONE_ON_S)
    assert {run["state"] for run in found.values()} == {"done"}
    wait_for_all(on_slurm, reference, all_ended, "the undisturbed runs to end", GONE_ON_S)
    for seed, folder in folders.items():
        result = read(folder.result)
        assert [attempt["outcome"] for attempt in result["attempts"]] == ["interrupted", "done"]
        assert result["attempts"][1]["start_epoch"] >= 1
        assert metrics(folder.result) == metrics(folder_of(tmp_path, seed, "undisturbed").result)
    assert seen == {seed: seen[seed] & {"running", "queued", "done"} for seed in seen}, "never anything else between"


def test_a_preemption_that_cancels_and_a_prolog_that_fails_are_told(
    make_cluster: Callable[[], PrivateCluster], data: Path, tmp_path: Path
) -> None:
    """Cancelled for another: what noticed goes back into the queue by itself; what hung is interrupted, preempted, and
    the next submit goes on with it. A failed prolog: queued, with Slurm's reason and the command that releases it."""
    home = make_cluster()
    prolog, broken = tmp_path / "prolog", tmp_path / "broken"
    prolog.write_text(f'#!/bin/sh\n[ "$SLURMD_NODENAME" != v100-1 ] || [ ! -e "{broken}" ]\n')
    prolog.chmod(0o755)
    broken.touch()
    cancelling = "PartitionName=yielding Nodes=p100-1 PriorityTier=1 PreemptMode=CANCEL"
    # KillWait is all the grace there is here: an epoch, its checkpoint and the way back into the queue must fit.
    home.start(extra=[f"Prolog={prolog}", cancelling, "KillWait=12"])
    sweep = Command("sweep", tmp_path, home.environment)
    home.run("scontrol", "update", "nodename=v100-2", "state=drain", "reason=test")
    pools = {"yielding": {**POOLS["p100"], "partition": "yielding"}, "v100": POOLS["v100"]}
    hung, on_prolog, noticed = 1, 2, 3
    rules = [{"when": {"seed": on_prolog}, "pool": "v100"}, {"pool": "yielding"}]
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), epochs=3, pools=pools, assign=rules, saves=True)
    sweep("submit", file, "--yes")
    hold_at_checkpoint([folder_of(tmp_path, seed) for seed in (hung, noticed)])
    home.run("scontrol", "update", f"jobid={by_seed(sweep, file)[hung]['job']}", "Requeue=0")
    urgent = ("--partition=urgent", "--nodelist=p100-1", "--exclusive", "--output=/dev/null")
    with Frozen(with_parent(trainer_of(folder_of(tmp_path, hung)))):
        home.run("sbatch", *urgent, "--wrap=sleep 2")
        found = wait_for_all(sweep, file, lambda now: now[hung]["state"] in ENDED, "the preemption")
    preempted = found[hung]
    assert (preempted["state"], preempted["cause"]) == ("interrupted", "preempted")
    assert preempted["epoch"] >= 1

    held = wait_for_all(sweep, file, lambda now: "release" in (now[on_prolog]["message"] or ""), "the failed launch")
    job = held[on_prolog]["job"]
    assert held[on_prolog]["state"] == "queued"
    assert "launch failed on a node" in held[on_prolog]["message"]
    assert f"scontrol release {job}" in held[on_prolog]["message"]
    broken.unlink()
    home.run("scontrol", "update", "nodename=v100-1", "state=resume")
    home.run("scontrol", "release", job)
    wait_for_all(sweep, file, lambda now: now[noticed]["attempt"] == 2, "the job that noticed to go on")
    assert "will submit 1 runs" in sweep("submit", file, "--yes").stderr, "the one that hung"
    found = wait_for_all(sweep, file, lambda now: {run["state"] for run in now.values()} == {"done"}, "all to finish")
    assert [found[seed]["attempt"] for seed in (hung, on_prolog, noticed)] == [2, 1, 2]
    assert read(folder_of(tmp_path, noticed).attempt(2))["job"] == read(folder_of(tmp_path, noticed).attempt(1))["job"]


def test_a_job_that_waits_says_for_what_and_whether_that_can_end(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Held, not yet eligible, impossible, closed, drained: queued with Slurm's reason. Cancelled in the queue:
    cancelled. Its output folder gone when it starts: a failed launch."""
    held, by_admin, later, too_large, never, dropped, closed, no_folder = range(1, 9)
    for node in slurm.nodes():
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    rules = [
        {"when": {"seed": no_folder}, "pool": "v100"},
        {"when": {"seed": closed}, "pool": "p100"},
        {"pool": "cpu"},
    ]
    file = slurm_file(tmp_path, data, seeds=range(1, 9), assign=rules)
    on_slurm("submit", file, "--yes")
    jobs = {seed: run["job"] for seed, run in by_seed(on_slurm, file).items()}
    dead = slurm.run("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true").strip()
    slurm.run("scancel", dead)
    slurm.run("scontrol", "uhold", jobs[held])
    slurm.run("scontrol", "hold", jobs[by_admin])
    slurm.run("scontrol", "update", f"jobid={jobs[later]}", "StartTime=now+1hour")
    slurm.run("scontrol", "update", f"jobid={jobs[too_large]}", "NumNodes=2-2")
    slurm.run("scontrol", "update", f"jobid={jobs[never]}", f"dependency=afterok:{dead}")
    slurm.run("scontrol", "update", "partitionname=p100", "state=DOWN")
    slurm.run("scancel", jobs[dropped])
    lost = Path(on_slurm.folder / "runs" / "study" / "submissions")
    folder = next(path for path in lost.glob("*-*/*") if no_folder in _seeds(path))
    folder.rename(tmp_path / "elsewhere")
    slurm.run("scontrol", "update", "nodename=v100-1", "state=resume")
    words = {
        held: f"waits until 'scontrol release {jobs[held]}'",
        by_admin: "held by an administrator",
        later: "waits for its start time",
        too_large: "it would wait for ever",
        never: "it would wait for ever",
        closed: "its partition is closed",
    }
    found = wait_for_all(
        on_slurm,
        file,
        lambda now: (
            now[no_folder]["state"] in ENDED
            and now[dropped]["state"] in ENDED
            and all(text in (now[seed]["message"] or "") for seed, text in words.items())
        ),
        "every job to wait for its reason",
    )
    assert {found[seed]["state"] for seed in words} == {"queued"}
    assert (found[dropped]["state"], found[dropped]["cause"]) == ("cancelled", None)
    assert (found[no_folder]["state"], found[no_folder]["cause"]) == ("failed", "launch_failed")
    # Newer Slurm (24.11) makes the folder of the log anew: the job starts, and misses its bundle.
    assert re.search(r"its log could not be created|bundle\.json: no such file", found[no_folder]["message"])
    on_slurm("cancel", file, "--yes")


def _seeds(job_folder: Path) -> set[int]:
    """Return the seeds of an array's runs."""
    return {spec["run"]["seed"] for task in read(job_folder / "bundle.json")["tasks"] for spec in task}


def test_a_job_that_dies_in_its_second_run_keeps_the_first_and_spares_the_third(
    on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """The first stays done, the second has the cause, the third waits for a submit, which sends only these two."""
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3), epochs=4, job_target_min=30, saves=True)
    assert "in 1 jobs" in on_slurm("submit", file, "--yes").stderr
    order = [seed for task in _tasks(tmp_path) for seed in task]
    second = folder_of(tmp_path, order[1])
    wait_for_checkpoints([second])
    for pid in reversed(with_parent(trainer_of(second))):
        os.kill(pid, signal.SIGKILL)
    found = wait_for_all(on_slurm, file, lambda now: now[order[1]]["state"] == "interrupted", "the job to die")
    assert [found[seed]["state"] for seed in order] == ["done", "interrupted", "planned"]
    assert found[order[1]]["cause"] == "killed"
    assert "ended before its turn" in found[order[2]]["message"]
    result = folder_of(tmp_path, order[0]).result.read_bytes()
    assert "will submit 2 runs" in on_slurm("submit", file, "--yes").stderr
    found = wait_for_all(on_slurm, file, lambda now: {run["state"] for run in now.values()} == {"done"}, "the rest")
    assert [found[seed]["attempt"] for seed in order] == [1, 2, 1]
    assert folder_of(tmp_path, order[0]).result.read_bytes() == result


def _tasks(tmp_path: Path) -> list[list[int]]:
    """Return the seeds of the only array's jobs, in the order they are worked off."""
    (bundle,) = (tmp_path / "runs" / "study" / "submissions").glob("*/0/bundle.json")
    return [[spec["run"]["seed"] for spec in task] for task in read(bundle)["tasks"]]


def test_forty_equal_failures_are_one_line() -> None:
    """One line with the count, the last frame and some names; a different failure has its own."""
    cells = [Run(id=f"run{seed}", architecture="vit", dataset="cifar10", ratio=1.0, seed=seed) for seed in range(41)]
    alike = RunStatus(cells[40], State.FAILED, Cause.EXCEPTION, "ValueError: no", node="v100-1")
    runs = [alike._replace(run=cell, frame="loop.py:7 in step") for cell in cells[:40]]
    other = alike._replace(cause=Cause.HOST_OOM, message="used more memory", frame=None)
    console = Console(width=200, record=True)
    console.print(failures([*runs, other], "study.yaml"))
    text = console.export_text()
    assert "✗ 40 runs  exception on v100-1" in text
    assert text.count("ValueError: no  (loop.py:7 in step)") == 1
    assert "run0, run1, run2 and 37 more" in text
    assert text.count("✗") == 2
    assert "✗ run40  host_oom on v100-1" in text


@pytest.mark.parametrize(
    ("own", "file", "text", "kills"),
    [
        ("0::/slurm/job_1\n", "slurm/job_1/memory.events", "low 0\noom 3\noom_kill 2\n", 2),
        (
            "9:cpu,cpuacct:/\n4:memory:/slurm/job_1\n",
            "memory/slurm/job_1/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            1,
        ),
        ("4:memory:/slurm/job_1\n", "memory/slurm/job_1/memory.oom_control", "under_oom 0\n", 0),
        ("0::/slurm/job_1\n", "elsewhere/memory.events", "oom_kill 5\n", 0),
        ("", "memory.events", "oom_kill 5\n", 0),
    ],
    ids=["version 2", "version 1", "a kernel that does not count", "another group's file", "no group"],
)
def test_the_kernels_kills_for_memory_are_counted(own: str, file: str, text: str, kills: int, tmp_path: Path) -> None:
    """Of this job's own control group, in both versions; where nothing is said, none."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    (tmp_path / "own").write_text(own)
    assert count_oom_kills(tmp_path, tmp_path / "own") == kills
