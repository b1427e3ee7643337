"""A cluster that takes only so many jobs of a user: what fits is sent, the rest later, as room comes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from conftest import Command
from slurm_fixtures import POOLS, slurm_file, states

from slurm.private_cluster.cluster import PrivateCluster


def test_a_user_who_may_have_three_jobs_sends_five_runs(
    make_cluster: Callable[[], PrivateCluster], data: Path, tmp_path: Path
) -> None:
    """Three at once, one of them a stranger's; none is refused, and `--wait` sends the rest when jobs have ended."""
    cluster = make_cluster()
    cluster.start(extra=["AccountingStorageEnforce=associations,limits"])
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=3")
    cluster.run("scontrol", "update", "nodename=cpu-1", "state=drain", "reason=test")
    other = cluster.run("sbatch", "--parsable", "--hold", "--wrap=true", "--output=/dev/null").strip()
    sweep = Command("sweep", tmp_path, cluster.environment)
    try:
        pools = {f"pool{seed}": POOLS["cpu"] for seed in range(1, 6)}  # runs of one pool would share fewer jobs
        rules = [{"when": {"seed": seed}, "pool": f"pool{seed}"} for seed in range(1, 6)]
        file = slurm_file(tmp_path, data, seeds=range(1, 6), epochs=1, pools=pools, assign=rules)
        said = sweep("submit", file, "--yes").stderr
        assert "submitted 2 jobs" in said
        limit = "you in account 'root': at most 3 jobs at a time, 1 already waiting or running"
        assert f"3 runs are left for later: {limit}" in said
        assert Counter(run["state"] for run in states(sweep, file).values()) == {"queued": 2, "planned": 3}
        full = sweep("submit", file, "--yes", expect=1).stderr
        assert "nothing was submitted: you in account 'root': at most 3 jobs" in full
        cluster.run("scontrol", "update", "nodename=cpu-1", "state=resume")
        cluster.run("scancel", other)
        waited = sweep("submit", file, "--yes", "--wait").stderr
        assert "runs wait for room" in waited or "submitted 3 jobs" in waited
        assert Counter(run["state"] for run in states(sweep, file).values()) == {"done": 5}
        assert "refused" not in waited
    finally:
        sweep.end()
