"""A run that lives and shows no sign: it is seen, its job goes on without it, and a retry resumes it."""

import os
import signal
from pathlib import Path

from conftest import Command, wait_for
from slurm_fixtures import slurm_file, states, wait_for_state
from slurm_runs import folder_of, hold_at_checkpoint, run_id, trainer_of, wait_for_all

from slurm.private_cluster.cluster import PrivateCluster


def test_a_job_ends_a_trainer_that_is_stuck_and_goes_on_with_its_other_runs(
    on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Stopped after a checkpoint, as on a file server that hangs; the next run of the job is done without anyone."""
    file = slurm_file(tmp_path, data, seeds=(1, 2), epochs=3, job_target_min=600, stall_min=0.05, saves=True)
    on_slurm("submit", file, "--yes")
    stuck, other = run_id(1), run_id(2)
    wait_for(lambda: trainer_of(folder_of(tmp_path, 1)) or trainer_of(folder_of(tmp_path, 2)), "the job's first run")
    if trainer_of(folder_of(tmp_path, 1)) is None:
        stuck, other = other, stuck
    hold_at_checkpoint([folder_of(tmp_path, int(stuck[-1]))])
    found = wait_for_state(on_slurm, file, stuck, "stalled", "interrupted")
    if found["state"] == "stalled":
        assert f"'sweep retry {stuck}' ends it and goes on" in found["message"]
    found = wait_for_state(on_slurm, file, stuck, "interrupted")
    assert "ended, for it had shown no sign for" in found["message"]
    assert wait_for_state(on_slurm, file, other, "done", "failed")["state"] == "done"
    on_slurm("retry", file, "--yes")
    assert wait_for_state(on_slurm, file, stuck, "done", "failed")["epoch"] == 3


def test_a_retry_ends_what_is_stuck_with_its_job(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Where the job itself does not see it: its supervisor is stopped, too. The run that waits behind goes along."""
    file = slurm_file(tmp_path, data, seeds=(1, 2), epochs=400, job_target_min=600, stall_min=0.05, saves=True)
    on_slurm("submit", file, "--yes")
    folder = folder_of(tmp_path, 1)
    wait_for(lambda: trainer_of(folder), "the first run")
    trainer = trainer_of(folder)
    assert trainer is not None
    parent = int(Path(f"/proc/{trainer}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (parent, trainer):
        os.kill(pid, signal.SIGSTOP)
    job = wait_for_state(on_slurm, file, run_id(1), "stalled")["job"]
    assert states(on_slurm, file)[run_id(2)]["state"] == "queued"
    said = on_slurm("retry", file, run_id(1), "--yes").stderr
    assert "its job is ended; it " in said
    assert f"share a job that is ended, and are submitted again: {run_id(2)}" in said
    found = wait_for_all(on_slurm, file, lambda runs: runs[1]["state"] == "running", "the run to go on")
    assert found[1]["job"] != job
    assert found[2]["state"] == "queued"
