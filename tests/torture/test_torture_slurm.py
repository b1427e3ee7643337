"""Slurm interrupts runs at random instants of their work; each goes on by itself to the history nothing disturbed.

An instant is a share of the work that a trainer has before it: of its start by processor time, then of its epochs. It
falls anywhere from the imports to the last epoch, however busy the machine is. The trainer is stopped there until Slurm
has acted, whose commands take longer than an epoch here. Three sweeps at a time, on nodes of their own, so that what is
done to a node hits one run alone.
"""

import contextlib
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from conftest import Command, metrics, read, wait_for
from networks import REFERENCE
from slurm_fixtures import POOLS, slurm_file
from slurm_interruptions import (
    AT_ONCE,
    CUT_OFF,
    DEAD,
    DO,
    GRACED,
    KINDS,
    LIMIT,
    REQUEUE,
    TURN_S,
    AtWork,
    Target,
    Watch,
)
from slurm_runs import folder_of
from torture_fixtures import Torture

from slurm.private_cluster.cluster import PrivateCluster
from trainer.records.checkpoint_file import list_checkpoints
from trainer.records.run import RunFolder

SEED = 5
START = 1 / 3  # of a trainer's work: its start, in which most of its processor time goes by
LATEST = 0.9  # of the work before a trainer
SPARED = 2  # epochs that no instant falls into: one goes by while it is looked


class Lane(NamedTuple):
    """A sweep on nodes of its own: what happens to each of its runs in this order, and how many run at a time."""

    name: str
    pool: dict[str, Any]
    runs: Sequence[Sequence[str]]
    max_parallel: int = 1


SHORT = (
    Lane("node", POOLS["v100"], [[DEAD]]),
    Lane("preemption", POOLS["p100"], [[GRACED]]),
    Lane("job", POOLS["cpu"], [[REQUEUE]]),
)
# A node that is cut off stays so until its run has an owner on the other: two of them would wait for each other.
LONG = (
    Lane("node", POOLS["v100"], [[CUT_OFF, REQUEUE, CUT_OFF], [DEAD, DEAD], [REQUEUE, DEAD]]),
    Lane("preemption", POOLS["p100"], [[GRACED, AT_ONCE, GRACED], [AT_ONCE, REQUEUE, AT_ONCE]]),
    Lane(
        "job",
        {**POOLS["cpu"], "time_limit_min": 2},  # Slurm warns up to 30 s early: with 1, some before the first epoch
        [[LIMIT, REQUEUE], [LIMIT, LIMIT], [REQUEUE, LIMIT], [LIMIT]],
        4,
    ),
)


@dataclass
class Victim:
    """A run, and what Slurm does to it, each at a share of the work that is left then. faults: what went wrong."""

    lane: Lane
    task: int
    bundle: Path
    job: str
    folder: RunFolder
    shares: Sequence[float]
    epochs: int
    held: AtWork | None = None
    instants: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> Sequence[str]:
        return self.lane.runs[self.task]

    def reached(self) -> int:
        """Return the epochs of the newest checkpoint."""
        newest = list_checkpoints(self.folder.checkpoints)[:1]
        return int(newest[0].stem.removeprefix("epoch-")) if newest else 0

    def hold(self, number: int, after: int, watch: Watch, start_s: float) -> AtWork:
        """Stop the trainer at its next instant, once Slurm has started the job more than `after` times anew.

        start_s: processor seconds of a start.
        """
        found: list[AtWork] = []

        def at_work() -> bool:
            found[:] = filter(None, [watch.trainer(self.bundle, self.task)])
            assert self.job in watch.jobs(), f"job {self.job} has left the queue before its interruption {number + 1}"
            return bool(found) and found[0].restarts > after

        wait_for(at_work, f"job {self.job} to be at work for its interruption {number + 1}", TURN_S)
        process, reached, share = found[0].process, self.reached(), self.shares[number]
        due_s = min(1.0, share / START) * start_s
        due = reached + max(0.0, share - START) / (1 - START) * (self.epochs - reached)
        # Twice at its limit without a checkpoint a run fails, as it should: it would come back for ever.
        further = self.kinds[number] == LIMIT and number > 0
        wait_for(
            lambda: (
                self.reached() >= self.epochs - SPARED
                or (self.reached() >= max(due, reached + further) and (due > reached or _used_s(process) >= due_s))
            ),
            f"job {self.job} to have worked for {due_s:.1f} s and to epoch {due:.1f}",
            TURN_S,
        )
        process.suspend()
        self.held = found[0]
        self.instants.append(f"{self.kinds[number]} at {share:.2f} of what epoch {reached} left")
        assert not self.folder.result.exists(), "was done before it was interrupted"
        return found[0]

    def interrupt(self, slurm: PrivateCluster, watch: Watch, start_s: float) -> None:
        """Do to the run all that is to be done, one after the other."""
        try:
            for number, kind in enumerate(self.kinds):
                held = self.hold(number, self.held.restarts if self.held else -1, watch, start_s)
                DO[kind](slurm, Target(self.job, self.folder, held))
        except Exception as error:  # said with the others when all have ended; they may wait for its node
            self.faults.append(f"{type(error).__name__}: {error}")
            with contextlib.suppress(psutil.NoSuchProcess):
                if self.held:
                    self.held.process.resume()


@pytest.fixture
def graced(slurm: PrivateCluster) -> Iterator[PrivateCluster]:
    """The session's cluster, whose partition p100 has its grace time again afterwards."""
    yield slurm
    slurm.run("scontrol", "update", "partitionname=p100", "gracetime=10")


def test_what_slurm_interrupts_at_any_instant_ends_by_itself_as_if_nothing_had_happened(
    graced: PrivateCluster, on_slurm: Command, trainer: Command, data: Path, tmp_path: Path, torture: Torture
) -> None:
    """Requeued, on a node that dies or is cut off, preempted, at the time limit: done without another `submit`, with
    the undisturbed history, in attempts that follow on each other; `verify` finds nothing."""
    lanes = LONG if torture.long else SHORT
    epochs = torture.count(10, 20)
    total = torture.count(3, 20)
    draw = random.Random(SEED)

    def undisturbed(seed: int) -> Path:
        return tmp_path / "undisturbed" / f"s{seed}"

    def train(seed: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        trainer(
            *("--architecture", REFERENCE, "--dataset", "cifar10", "--ratio", 1.0, "--seed", seed, "--data", data),
            *("--epochs", epochs, "--batch-size", 8, "--lr-milestones", "--threads", POOLS["cpu"].get("cpus", 1)),
            *("--checkpoint-interval", 0, "--output", undisturbed(seed)),
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    start_s = train(1)  # its epochs, which sleep, cost little

    pools = {lane.name: lane.pool for lane in lanes}
    files = []
    victims = []
    for lane in lanes:
        section = {"pool": lane.name, "pools": pools, "max_parallel": lane.max_parallel}
        files.append(
            slurm_file(
                tmp_path, data, seeds=range(1, len(lane.runs) + 1), epochs=epochs, name=lane.name, saves=True, **section
            )
        )
        on_slurm("submit", files[-1], "--yes")
        (intent,) = (tmp_path / "runs" / lane.name / "submissions").glob("*.json")
        (array,) = read(intent)["arrays"]
        bundle = intent.with_suffix("") / "0" / "bundle.json"
        for task, (spec,) in enumerate(read(bundle)["tasks"]):
            folder = folder_of(tmp_path, spec["run"]["seed"], lane.name)
            last = len(lane.runs[task]) - 1
            # What comes later needs something that is left to do.
            shares = [draw.uniform(0, LATEST if number == last else LATEST / 2) for number in range(last + 1)]
            victims.append(Victim(lane, task, bundle, f"{array['job']}_{task}", folder, shares, epochs))

    watch = Watch(graced)
    with ThreadPoolExecutor(len(victims)) as threads:
        for victim in victims:
            threads.submit(victim.interrupt, graced, watch, start_s)
        for seed in range(2, max(len(lane.runs) for lane in lanes) + 1):
            train(seed)
    good: Counter[str] = Counter()
    for victim in victims:
        wait_for(lambda job=victim.job: job not in watch.jobs(), f"job {victim.job} to end")
        victim.faults += judge(victim, undisturbed)
        good.update(KINDS.get(kind, kind) for kind in victim.kinds if not victim.faults)
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(good.items()))
    torture.say(f"Slurm interrupted {good.total()}/{total} times to the undisturbed history ({told}; seed {SEED})")
    faults = [f"{v.lane.name} {v.task}: {'; '.join(v.faults)} ({'; '.join(v.instants)})" for v in victims if v.faults]
    assert not faults, "\n".join(faults)
    assert good.total() == total
    for file in files:
        on_slurm("verify", file)


def _used_s(process: psutil.Process) -> float:
    """Return the processor seconds that a process has used."""
    return float(sum(process.cpu_times()[:2]))


def judge(victim: Victim, undisturbed: Callable[[int], Path]) -> list[str]:
    """Say what is wrong with a run whose job has ended."""
    records = [read(victim.folder.attempt(number)) for number in victim.folder.attempt_numbers()]
    result = read(victim.folder.result)
    if result is None:
        ends = [(record["outcome"], record["cause"], record["message"]) for record in records]
        return [f"its job has ended without a result: {ends}"]
    faults = []
    if metrics(victim.folder.result) != metrics(undisturbed(result["run"]["seed"]) / "result.json"):
        faults.append("another history")
    attempts = result["attempts"]
    if [attempt["number"] for attempt in attempts] != list(range(1, len(records) + 1)):
        faults.append("attempts are missing or counted twice")
    if [attempt["outcome"] for attempt in attempts] != ["interrupted"] * (len(attempts) - 1) + ["done"]:
        faults.append(f"outcomes {[attempt['outcome'] for attempt in attempts]}")
    reached = 0
    for attempt in attempts:
        if not attempt["start_epoch"] <= reached:
            faults.append(f"attempt {attempt['number']} began with an epoch that nobody had trained")
        reached = max(reached, attempt["end_epoch"])
    if attempts[-1]["end_epoch"] != victim.epochs:
        faults.append(f"ended with epoch {attempts[-1]['end_epoch']}")
    if records[-1]["restarts"] < len(victim.kinds):
        faults.append(f"Slurm started its job {records[-1]['restarts']} times anew, not {len(victim.kinds)}")
    return faults
