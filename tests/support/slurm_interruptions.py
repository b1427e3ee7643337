"""Find a run's trainer in its Slurm job, and interrupt it in every way that Slurm has."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from conftest import wait_for

from slurm.private_cluster.cluster import PrivateCluster
from slurm.private_cluster.daemons import SLURMD
from slurm.private_cluster.folder import HomeError
from trainer.records.run import RunFolder

TURN_S = 480.0  # for a run to train again: others may run on its node before
LOOK_S = 0.1
SIGUSR2_BIT = 1 << 11

REQUEUE, LIMIT = "requeue", "time limit"
DEAD, CUT_OFF = "node dead", "node cut off"
GRACED, AT_ONCE = "preemption in grace", "preemption at once"
KINDS = {DEAD: "node down", CUT_OFF: "node down", GRACED: "preemption", AT_ONCE: "preemption"}


class AtWork(NamedTuple):
    """A trainer in a job. restarts: how often Slurm had restarted the job."""

    process: psutil.Process
    node: str
    restarts: int


class Target(NamedTuple):
    """A run whose trainer is stopped at some point. job: its array task, as "12_3"."""

    job: str
    folder: RunFolder
    trainer: AtWork


class Watch:
    """Caches the running trainers and the queued jobs for all threads."""

    def __init__(self, slurm: PrivateCluster) -> None:
        self.slurm = slurm
        self.lock = threading.Lock()
        self.looks: dict[str, tuple[float, Any]] = {}

    def trainer(self, bundle: Path, task: int) -> AtWork | None:
        """Return the latest trainer of a bundle's task."""
        found = self._look("trainers", LOOK_S, _trainers).get((str(bundle), str(task)), [])
        return max(found, key=lambda trainer: trainer.restarts, default=None)

    def jobs(self) -> set[str]:
        """Return the array tasks that have not ended."""
        names = self._look("jobs", 10 * LOOK_S, lambda: self.slurm.run("squeue", "-h", "-r", "-o", "%F_%K"))
        return set(names.split())

    def _look(self, name: str, age_s: float, look: Callable[[], Any]) -> Any:
        with self.lock:
            when, seen = self.looks.get(name, (0.0, None))
            if time.monotonic() - when > age_s:
                seen = look()
                self.looks[name] = (time.monotonic(), seen)
            return seen


def _trainers() -> dict[tuple[str, str], list[AtWork]]:
    """Find the trainers in Slurm's jobs, by bundle and task."""
    found: dict[tuple[str, str], list[AtWork]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if not {"trainer", "--bundle", "--task"} <= set(command) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment = process.environ()
            if "SLURMD_NODENAME" in environment:
                key = (command[command.index("--bundle") + 1], command[command.index("--task") + 1])
                restarts = int(environment.get("SLURM_RESTART_COUNT", "0"))
                found.setdefault(key, []).append(AtWork(process, environment["SLURMD_NODENAME"], restarts))
    return found


def requeue(slurm: PrivateCluster, target: Target) -> None:
    """Requeue the job, as an administrator may."""
    slurm.run("scontrol", "requeue", target.job)


def lose_node(slurm: PrivateCluster, target: Target) -> None:
    """Simulate a power cut of the node: kill slurmd and all processes of the job, then bring the node back."""
    slurm.kill_node(target.trainer.node)
    _set_down(slurm, target.trainer.node)
    slurm.start_daemon(SLURMD + target.trainer.node)
    _set_up(slurm, target.trainer.node)


def cut_node_off(slurm: PrivateCluster, target: Target) -> None:
    """Silence the node, so that it counts as dead, and continue its trainer once the run has another owner.

    The trainer must notice that it has lost the run and exit by itself: nobody can reach it.
    """
    owners = len(target.folder.attempt_numbers())
    slurm.suspend(SLURMD + target.trainer.node)
    try:
        _set_down(slurm, target.trainer.node)
        wait_for(lambda: len(target.folder.attempt_numbers()) > owners, "another owner", TURN_S)
        target.trainer.process.resume()
        target.trainer.process.wait(60)
    finally:
        slurm.resume(SLURMD + target.trainer.node)
        _set_up(slurm, target.trainer.node)


def preempt_in_grace(slurm: PrivateCluster, target: Target) -> None:
    """Preempt the run by a job of higher priority, with a grace period."""
    _preempt(slurm, target.trainer.node, grace_s=10)
    wake_when_told(target.trainer.process)


def preempt_at_once(slurm: PrivateCluster, target: Target) -> None:
    """Preempt the run by a job of higher priority, without a grace period."""
    _preempt(slurm, target.trainer.node, grace_s=0)


def reach_limit(slurm: PrivateCluster, target: Target) -> None:
    """Wait for the warning before the time limit, and continue the stopped trainer."""
    wake_when_told(target.trainer.process)


DO: dict[str, Callable[[PrivateCluster, Target], None]] = {
    REQUEUE: requeue,
    DEAD: lose_node,
    CUT_OFF: cut_node_off,
    GRACED: preempt_in_grace,
    AT_ONCE: preempt_at_once,
    LIMIT: reach_limit,
}


def _preempt(slurm: PrivateCluster, node: str, *, grace_s: int) -> None:
    partition = node.partition("-")[0]
    slurm.run("scontrol", "update", f"partitionname={partition}", f"gracetime={grace_s}")
    slurm.run("sbatch", "-p", "urgent", "-w", node, "--exclusive", "--output=/dev/null", "--wrap=sleep 1")


def _set_down(slurm: PrivateCluster, node: str) -> None:
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")  # at once, before its time-out


def _set_up(slurm: PrivateCluster, node: str) -> None:
    with contextlib.suppress(HomeError):  # it came back by itself
        slurm.run("scontrol", "update", f"nodename={node}", "state=resume")


def wake_when_told(process: psutil.Process) -> None:
    """Continue a stopped process once SIGUSR2 is pending, unless Slurm ends it first."""

    def told() -> bool:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
            return any(mask & SIGUSR2_BIT for mask in pending)
        return True

    wait_for(told, f"SIGUSR2 to process {process.pid}", 180)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()
