"""What a job on Slurm does when it is told to make room, at awkward moments and beside others of its array."""

import contextlib
import time
from pathlib import Path

import psutil
import pytest
from conftest import Command, read, wait_for
from slurm_fixtures import LONG, slurm_file
from slurm_interruptions import wake_when_told
from slurm_runs import by_seed, folder_of, has_checkpoint, trainer_of, wait_for_checkpoints

from slurm.private_cluster.cluster import PrivateCluster


def test_a_run_cut_off_before_its_first_checkpoint_goes_on_after_its_time_limit(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Requeued at its start, then warned of its limit with checkpoints made: that is no run that never gets further."""
    file = slurm_file(tmp_path, data, epochs=LONG, saves=True)
    on_slurm("submit", file, "--yes")
    folder = folder_of(tmp_path, 1)
    wait_for(lambda: trainer_of(folder) is not None, "the run to be claimed")
    psutil.Process(trainer_of(folder)).suspend()  # a checkpoint is made in less time than a command takes
    assert not has_checkpoint(folder)
    job = by_seed(on_slurm, file)[1]["job"]
    slurm.run("scontrol", "requeue", job)
    wait_for(lambda: len(folder.attempt_numbers()) == 2, "the second attempt")
    wait_for_checkpoints([folder])
    assert read(folder.attempt(2))["start_epoch"] == 0
    slurm.run("scontrol", "update", f"jobid={job}", "EndTime=now+60seconds")
    wait_for(lambda: len(folder.attempt_numbers()) == 3 or read(folder.attempt(2))["outcome"] == "failed", "its future")
    on_slurm("cancel", file, "--yes")
    assert read(folder.attempt(2))["outcome"] == "interrupted"


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2])
def test_a_job_preempted_in_its_first_second_goes_on_by_itself(
    delay_s: float, slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """Told of its preemption while Python still loads, it is not killed by the signal, but back in the queue."""
    file = slurm_file(tmp_path, data, epochs=1, pool="p100")
    on_slurm("submit", file, "--yes")
    task = task_of(tmp_path)
    time.sleep(delay_s)
    task.suspend()
    slurm.run("sbatch", "-p", "urgent", "-w", "p100-1", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    wake_when_told(task)
    wait_for(lambda: not slurm.run("squeue", "-h", "-p", "p100").strip(), "the job to end")
    assert folder_of(tmp_path, 1).result.exists()


def task_of(folder: Path) -> psutil.Process:
    """Wait for the process that Slurm starts for a sweep in a folder."""
    found: list[psutil.Process] = []

    def started() -> bool:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if "slurm.task" in words and words[0].endswith("python") and str(folder) in words[-1]:
                    found.append(process)
        return bool(found)

    wait_for(started, "the job to start")
    return found[0]
