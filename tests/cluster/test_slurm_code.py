"""Jobs wait for days, and their code is edited, checked out elsewhere or deleted meanwhile: they run what was sent."""

import shutil
from pathlib import Path

from clone_fixtures import BREAKS, Clone
from conftest import Command, read
from slurm_fixtures import slurm_file, states, wait_for_state
from slurm_runs import folder_of, run_id

from slurm.private_cluster.cluster import PrivateCluster


def test_a_clone_is_edited_and_deleted_while_its_jobs_wait(slurm: PrivateCluster, data: Path, tmp_path: Path) -> None:
    """Two submissions of one clone, edited between them, run each its own code, and record it, once both are let go."""
    clone = Clone(tmp_path / "clone")
    commit = clone.head
    sweep = Command("sweep", clone.path, slurm.environment | clone.environment)
    file = slurm_file(tmp_path, data, seeds=(1,), epochs=1)
    slurm.run("scontrol", "update", "partitionname=cpu", "state=DOWN")
    try:
        assert "as it is now" not in sweep("submit", file, "--yes").stderr
        clone.edit("trainer/loop/trainer.py", "# tried\n")
        file = slurm_file(tmp_path, data, seeds=(1, 2), epochs=1)
        assert f"commit {commit[:12]} with uncommitted changes" in sweep("submit", file, "--yes").stderr
        codes = [sweep.json("show", file, run_id(seed))["code"] for seed in (1, 2)]
        for module in ("slurm/task.py", "trainer/__main__.py"):
            clone.edit(module, BREAKS)
        shutil.rmtree(clone.path / "trainer")
        slurm.run("scontrol", "update", "partitionname=cpu", "state=UP")
        for seed in (1, 2):
            wait_for_state(sweep, file, run_id(seed), "done", "failed")
    finally:
        sweep.end()
    assert {found["state"] for found in states(sweep, file).values()} == {"done"}
    recorded = [read(folder_of(tmp_path, seed).result)["environment"] for seed in (1, 2)]
    assert [(found["git_commit"], found["git_dirty"]) for found in recorded] == [(commit, False), (commit, True)]
    assert [(code["commit"], code["dirty"]) for code in codes] == [(commit, False), (commit, True)]
    assert len({code["snapshot"] for code in codes}) == 2
