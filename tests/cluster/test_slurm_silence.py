"""While Slurm is silent, in part or whole, no run is called what it is not; and when it speaks again all is current."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cluster_fixtures import clean
from conftest import Command, read, wait_for
from slurm_fixtures import LONG, POOLS, slurm_file, states
from slurm_runs import trainer_of, wait_for_checkpoints, with_parent

from slurm.private_cluster.cluster import PrivateCluster
from sweep.status.look import CACHE_S
from trainer.records.base import now
from trainer.records.run import RunFolder

# Two calls of 20 s at most each, and the command's own work on a busy machine.
FULL = "small-cifar10-r1.0"
DONE, DONE_TOO, KILLED = (f"{FULL}-s{seed}-epochs=2" for seed in (1, 3, 2))
RUNNING, REQUEUED, FAILED = (f"{FULL}-s{seed}-epochs={LONG}" for seed in (1, 3, 2))
WAITING = [f"small-cifar10-r0.5-s{seed}-epochs={epochs}" for seed in (1, 2, 3) for epochs in (2, LONG)]
TRUTH = {
    DONE: ("done", None),
    DONE_TOO: ("done", None),
    RUNNING: ("running", None),
    KILLED: ("interrupted", "killed"),
    FAILED: ("failed", "launch_failed"),
    **dict.fromkeys([REQUEUED, *WAITING], ("queued", None)),
}
LIVE = [RUNNING, REQUEUED, *WAITING]


class Standing(NamedTuple):
    """A sweep on a cluster, in the middle of its work."""

    home: PrivateCluster
    sweep: Command
    file: Path

    def told(self) -> dict[str, tuple[str, str | None]]:
        """Return state and cause of every run."""
        return {name: (run["state"], run["cause"]) for name, run in states(self.sweep, self.file).items()}

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.file.parent / "runs" / "study" / "runs" / name)

    @property
    def queue(self) -> Path:
        return self.file.parent / "runs" / "study" / "queue.json"

    def look(self) -> tuple[dict[str, dict[str, Any]], str]:
        """Ask anew for the status: the runs by id, and what stderr said. A command that hangs for good fails."""
        if self.queue.exists():
            asked = datetime.fromisoformat(read(self.queue)["squeue"]["asked"])
            time.sleep(max(0.0, CACHE_S + 0.1 - (now() - asked).total_seconds()))
        answer = self.sweep("status", self.file, "--json")
        return {run["id"]: run for run in json.loads(answer.stdout)["runs"]}, answer.stderr


def set_up(home: PrivateCluster, sweep: Command, data: Path) -> Standing:
    """Bring twelve runs of a sweep to where TRUTH says. The running one hangs, to leave the processors to others."""
    home.run("scontrol", "update", "nodename=p100-1", "state=drain", "reason=test")
    pools = {**POOLS, "broken": {**POOLS["cpu"], "setup": ["exit 3"]}}
    rules = [
        {"when": {"ratio": 0.5}, "pool": "p100"},
        {"when": {"seed": 2, "epochs": LONG}, "pool": "broken"},
        {"pool": "cpu"},
    ]
    file = slurm_file(sweep.folder, data, seeds=(1, 2, 3), ratios=(0.5, 1.0), pools=pools, assign=rules, saves=True)
    section = read(file)
    section["grid"]["epochs"] = [2, LONG]
    del section["training"]["epochs"]
    file.write_text(json.dumps(section))
    standing = Standing(home, sweep, file)
    sweep("submit", file, "--yes")
    for name in (KILLED, RUNNING):
        wait_for(lambda name=name: trainer_of(standing.run(name)) is not None, f"{name} to start")
        pid = trainer_of(standing.run(name))
        os.kill(pid, signal.SIGKILL if name == KILLED else signal.SIGSTOP)
    wait_for_checkpoints([standing.run(REQUEUED)])
    home.run("scontrol", "requeuehold", states(sweep, file)[REQUEUED]["job"])
    wait_for(lambda: standing.told() == TRUTH, "the runs to stand as they should")
    return standing


@pytest.fixture(scope="module")
def standing(cluster: PrivateCluster, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A sweep in the middle of its work; each test gives the cluster back as it was."""
    clean(cluster)
    sweep = Command("sweep", tmp_path_factory.mktemp("standing"), cluster.environment)
    yield set_up(cluster, sweep, data)
    for name in cluster.daemons():
        cluster.resume(name)
    cluster.start()
    sweep("cancel", sweep.folder / "study.yaml", "--yes")
    sweep.end()


class Outage(NamedTuple):
    """Daemons that are killed or hang, and which of Slurm's answers are missing then."""

    killed: tuple[str, ...] = ()
    hung: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def begin(self, home: PrivateCluster) -> None:
        for name in self.killed:
            home.kill(name)
        for name in self.hung:
            home.suspend(name)

    def end(self, home: PrivateCluster) -> None:
        for name in self.hung:
            home.resume(name)
        home.start()


OUTAGES = {
    "slurmctld is down": Outage(killed=("slurmctld",), missing=("squeue",)),
    "slurmctld hangs": Outage(hung=("slurmctld",), missing=("squeue",)),
    "slurmdbd is down": Outage(killed=("slurmdbd",), missing=("sacct",)),
    "both are down": Outage(killed=("slurmctld", "slurmdbd"), missing=("squeue", "sacct")),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())
@pytest.mark.parametrize("remembers", [True, False], ids=["after a look", "on the first look"])
def test_silence_is_no_evidence(standing: Standing, outage: Outage, remembers: bool) -> None:
    """Every state stays. What only Slurm can know is marked with age and reason, which stderr says too, in time."""
    outage.begin(standing.home)
    try:
        if not remembers:
            standing.queue.unlink()
        runs, said = standing.look()
    finally:
        outage.end(standing.home)
    told = {name: (run["state"], run["cause"]) for name, run in runs.items()}
    if not remembers and outage.missing == ("squeue", "sacct"):
        assert told.pop(FAILED)[0] == "queued", "nobody can know that its job died before it began"
        assert runs[FAILED]["problem"]
    assert told == {name: TRUTH[name] for name in told}
    for name in LIVE:
        assert bool(runs[name]["problem"]) == ("squeue" in outage.missing), name
        once_told = remembers or "sacct" not in outage.missing
        assert bool(runs[name]["stale_since"]) == ("squeue" in outage.missing and once_told), name
    assert not runs[DONE]["problem"]
    if "squeue" in outage.missing:
        assert "squeue does not answer" in said
        assert "runs are shown as last known" in said
    if "sacct" in outage.missing and not remembers:
        assert "sacct does not answer" in said

    runs, said = standing.look()
    assert {name: (run["state"], run["cause"]) for name, run in runs.items()} == TRUTH
    assert {run["problem"] for run in runs.values()} == {None}
    assert said == ""


def test_a_munged_that_hangs_stops_no_command_for_good(standing: Standing) -> None:
    """Slurm's commands wait for it for ever; ours does not, and calls nothing dead."""
    outage = Outage(hung=("munged",), missing=("squeue",))
    outage.begin(standing.home)
    try:
        runs, said = standing.look()
    finally:
        outage.end(standing.home)
    assert {name: (run["state"], run["cause"]) for name, run in runs.items()} == TRUTH
    assert all(runs[name]["problem"] and runs[name]["stale_since"] for name in LIVE)
    assert "did not answer within" in said
    # Slurm itself may have taken the node for dead meanwhile, and put its job back into the queue.
    wait_for(lambda: not any(run["problem"] for run in standing.look()[0].values()), "Slurm to answer again")
    told = standing.told()
    assert told.pop(RUNNING)[0] in ("running", "queued")
    assert told == {name: TRUTH[name] for name in told}


def test_without_accounting_the_queue_and_the_files_tell_everything(
    make_cluster: Callable[[], PrivateCluster], data: Path, tmp_path: Path
) -> None:
    """Causes while the queue remembers a job. Once it has forgotten all, what was done or failed stays so, what was cut
    off is interrupted, what had not begun is lost; and others' jobs that got our ids are not ours."""
    home = make_cluster()
    home.start(accounting=False)
    sweep = Command("sweep", tmp_path, home.environment)
    standing = set_up(home, sweep, data)
    runs, said = standing.look()
    assert (said, runs[RUNNING]["problem"]) == ("", None)
    ours = {run["job"].partition("_")[0] for run in runs.values() if run["job"]}

    home.stop_daemon("slurmctld")
    for pid in reversed(with_parent(trainer_of(standing.run(RUNNING)))):
        os.kill(pid, signal.SIGKILL)
    for path in (home.folder / "state").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    home.start()
    home.run("scontrol", "update", "nodename=p100-1", "state=drain", "reason=test")
    foreign = {
        home.run("sbatch", "--parsable", "--hold", "--array=0-3", "--output=/dev/null", "--wrap=sleep 100").strip()
        for _ in range(len(runs))
    }
    home.run("scontrol", "release", *foreign)
    assert ours <= foreign, "ids are given anew"
    wait_for(lambda: standing.told()[RUNNING][0] != "running", "Slurm to be asked again")
    cut_off = dict.fromkeys([RUNNING, REQUEUED], ("interrupted", "killed"))
    after = {**TRUTH, **cut_off, **dict.fromkeys(WAITING, ("failed", "lost"))}
    assert standing.told() == after


def test_a_task_that_is_cancelled_while_it_waits_is_told_beside_its_array(
    slurm: PrivateCluster, on_slurm: Command, data: Path, tmp_path: Path
) -> None:
    """squeue and sacct forget it at once, and its array's number is still there: that of the others."""
    slurm.run("scontrol", "update", "nodename=cpu-1", "state=drain", "reason=test")
    file = slurm_file(tmp_path, data, seeds=(1, 2, 3))
    on_slurm("submit", file, "--yes")
    before = states(on_slurm, file)
    first, second, third = before
    slurm.run("scontrol", "uhold", before[first]["job"])
    slurm.run("scancel", before[second]["job"])
    wait_for(lambda: states(on_slurm, file)[second]["state"] == "cancelled", "the cancellation to be seen", 30)
    assert "cancelled while it waited" in states(on_slurm, file)[second]["message"]
    assert {states(on_slurm, file)[run_id]["state"] for run_id in (first, third)} == {"queued"}
