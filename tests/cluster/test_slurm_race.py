"""Runs that are sent to several pools at once: the first whose job starts trains each, exactly once."""

from collections import Counter
from pathlib import Path

from conftest import Command, read, wait_for
from slurm_fixtures import LONG, POOLS, slurm_file
from slurm_runs import all_ended, by_seed, folder_of, hold_at_checkpoint, wait_for_all

from slurm.private_cluster.cluster import PrivateCluster

RACE = [{"pool": ["p100", "cpu"], "first": True}]


def test_the_pool_that_is_free_takes_the_runs_and_the_other_s_jobs_are_cancelled(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """One pool is drained: its jobs wait beside the others, and are gone before anyone looks."""
    slurm.run("scontrol", "update", "nodename=p100-1", "state=drain", "reason=test")
    file = slurm_file(tmp_path, data, seeds=(1, 2), assign=RACE)
    assert "submitted 4 jobs in 2 arrays" in on_slurm("submit", file, "--yes").stderr
    found = wait_for_all(on_slurm, file, all_ended, "both runs")
    assert {(run["state"], run["node"], run["attempt"]) for run in found.values()} == {("done", "cpu-1", 1)}
    wait_for(lambda: not slurm.run("squeue", "-h"), "the jobs that wait for nothing to be cancelled", 15)
    assert read(folder_of(tmp_path, 1).result)["hardware"]["pool"] == "cpu"


def test_where_both_pools_are_free_every_run_is_trained_once(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Jobs of both start at the same moment; and another pool's job that dies at its start costs a run nothing."""
    file = slurm_file(tmp_path, data, seeds=range(1, 5), epochs=1, assign=RACE)
    on_slurm("submit", file, "--yes")
    found = wait_for_all(on_slurm, file, all_ended, "all runs")
    assert Counter(run["state"] for run in found.values()) == {"done": 4}
    for seed in found:
        assert [path.name for path in folder_of(tmp_path, seed).attempts.iterdir()] == ["0001.json"]
    wait_for(lambda: not slurm.run("squeue", "-h"), "every job to end", 30)


def test_a_job_that_was_requeued_at_work_keeps_its_run_when_another_pool_s_takes_the_next(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Both jobs have started, and their task has two runs: one is cut off in the first and waits again, while the other
    begins the second. That is no reason to cancel the first: it goes on with its run, by itself.
    """
    pools = {
        name: {**POOLS[name], "time_limit_min": 600, "setup": [f"until [ -e '{tmp_path}/{name}' ]; do sleep 0.1; done"]}
        for name in ("p100", "cpu")
    }
    file = slurm_file(tmp_path, data, seeds=(1, 2), epochs=20, saves=True, pools=pools, assign=RACE, job_target_min=500)
    on_slurm("submit", file, "--yes")
    wait_for(lambda: slurm.run("squeue", "-h", "-o", "%T").split() == ["RUNNING"] * 2, "both jobs to start")
    (tmp_path / "p100").touch()
    hold_at_checkpoint([folder_of(tmp_path, 1)])
    slurm.run("scontrol", "update", "nodename=p100-1", "state=drain", "reason=test")
    slurm.run("scontrol", "requeue", slurm.run("squeue", "-h", "-r", "-p", "p100", "-o", "%F_%K").strip())
    wait_for(lambda: slurm.run("squeue", "-h", "-p", "p100", "-o", "%T").strip() == "PENDING", "it to wait again")
    (tmp_path / "cpu").touch()
    wait_for(lambda: not slurm.run("squeue", "-h", "-p", "cpu").strip(), "the other pool's job to end")
    assert {seed: run["state"] for seed, run in by_seed(on_slurm, file).items()} == {1: "queued", 2: "done"}
    slurm.run("scontrol", "update", "nodename=p100-1", "state=resume")
    found = wait_for_all(on_slurm, file, all_ended, "the first run as well")
    told = {seed: (run["state"], run["node"], run["attempt"]) for seed, run in found.items()}
    assert told == {1: ("done", "p100-1", 2), 2: ("done", "cpu-1", 1)}


def test_a_race_is_seen_and_cancelled_as_one_run(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Queued while one of its jobs has failed to launch and the other waits; cancelling takes both pools' jobs."""
    slurm.run("scontrol", "update", "nodename=p100-1", "state=drain", "reason=test")
    pools = {
        name: {"device": "cpu", "partition": name, "memory_gb": 2, "time_limit_min": 60} for name in ("p100", "cpu")
    }
    pools["cpu"]["setup"] = ["exit 3"]
    file = slurm_file(tmp_path, data, epochs=LONG, pools=pools, assign=RACE)
    on_slurm("submit", file, "--yes")
    wait_for(lambda: "cpu" not in slurm.run("squeue", "-h", "-o", "%P").split(), "the job that dies at its start")
    found = by_seed(on_slurm, file)[1]
    assert (found["state"], found["cause"]) == ("queued", None)
    on_slurm("cancel", file, "--yes")
    wait_for(lambda: not slurm.run("squeue", "-h"), "the job that waits to be cancelled")
    assert by_seed(on_slurm, file)[1]["state"] == "cancelled"
