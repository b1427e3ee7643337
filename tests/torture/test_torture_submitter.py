"""Submitters are killed again and again while their cluster refuses, requeues and holds: each run is done exactly once.

The sweep grows while they work, its runs race between pools, and the cluster takes only so many jobs of the user. What
is held to is what lies on disk in the end: see `exactly_once`.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LONG_S, Command, read
from exactly_once import Remains, accounted
from networks import WATCHED
from slurm_fixtures import POOLS, slurm_file
from slurm_trouble import Trouble
from torture_fixtures import Torture
from torture_submitters import BETWEEN, ENDED, PHASES, Kill, Submitters, draw_moment

from slurm.private_cluster.cluster import PrivateCluster

SEED = 8
KILLS = 200
RACES = [{"when": {"ratio": 0.5}, "pool": ["v100", "p100"], "first": True}, {"pool": ["p100", "cpu"], "first": True}]
NODES = ("v100-1", "v100-2", "p100-1", "cpu-1")
MOST_JOBS = 12
ROOM = 4  # for one race of each kind, in two pools
ROOM_S = 5.0
TO_SUBMIT, TO_RETRY = {"planned", "interrupted", "cancelled"}, {"failed"}
MORE = 0.2  # of the submitters find runs that are new although others are left
EPOCHS = 8  # a second of training: a requeue hits some runs at work
END_S = 900.0  # for the cluster to work off what is left, undisturbed
NO_ROOM = ("nothing was submitted: you in account", "are left for later: you in account")
EXPECTED = ("requeues", "holds", "refused by the limit", "taken, unknown to their submitter")
HARMLESS = "was being written when its writer was killed\tnothing is lost"
LIMITED = "sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={MOST_JOBS}"


@pytest.mark.long  # a cluster and a handful of kills take a minute of processor time
def test_a_submitter_killed_at_any_moment_costs_no_run_and_doubles_none(
    make_cluster: Callable[[], PrivateCluster], data: Path, tmp_path: Path, torture: Torture
) -> None:
    """`submit`, `submit --wait` and `retry`, before, between and after their calls of sbatch, across races between
    pools, requeues, holds and refusals by MaxSubmitJobs: 0 lost, 0 doubled, no array twice, no job left over.
    """
    began = time.monotonic()
    draw = random.Random(SEED)
    cluster = make_cluster()
    cluster.start(extra=["AccountingStorageEnforce=associations,limits"])
    cluster.run(*LIMITED)
    sweep = Command("sweep", tmp_path, cluster.environment)
    folder = tmp_path / "runs" / "study"
    trouble = Trouble(cluster, folder, list(POOLS), NODES, MOST_JOBS, f"{SEED}-trouble")
    # One job a node at a time, so that some of a race wait while others start at once.
    pools = {
        name: {**pool, "memory_gb": 60, "setup": [f"test ! -e '{trouble.broken(name)}'"]}
        for name, pool in POOLS.items()
    }
    submitters = Submitters(sweep, folder / "submissions")
    seeds = 0
    ended: list[Kill] = []

    def grow(by: int) -> Path:
        nonlocal seeds
        seeds += by
        grid = {"seeds": range(1, seeds + 1), "ratios": (0.5, 1.0), "architecture": WATCHED}
        return slurm_file(tmp_path, data, **grid, epochs=EPOCHS, pools=pools, assign=RACES)

    try:
        file = grow(1)
        started = time.monotonic()
        sweep("submit", file, "--yes")
        life_s = time.monotonic() - started
        with trouble:
            while sum(one.phase != ENDED for one in ended) < KILLS:
                assert len(ended) < 3 * KILLS, f"seed {SEED}: {Counter(one.phase for one in ended)}"
                states = {run["state"] for run in sweep.runs(file)}
                file = grow(int(not states & TO_SUBMIT or draw.random() < MORE))
                if draw.random() < 0.8:
                    _wait_for_room(cluster)
                commands = (("submit",), ("submit", "--wait"), ("retry",) if states & TO_RETRY else ("submit",))
                command = draw.choice(commands)
                moment = draw_moment(draw, life_s, waits="--wait" in command)
                whole = draw.random() < 0.3
                ended.append(submitters.kill([command[0], str(file), "--yes", *command[1:]], moment, whole=whole))
                if ended[-1].phase == ENDED and "--wait" not in command:
                    life_s = ended[-1].lived_s
        rounds = _finish(sweep, file)
        left = [*_left(cluster), *_found(sweep, file)]
    finally:
        sweep.end()
    runs = [run["run"]["id"] for run in read(folder / "plan.json")["runs"]]
    assert len(runs) == 2 * seeds
    remains = Remains(folder, accounted(cluster), runs)
    lost, doubled, strays = remains.lost(), remains.doubled(), [*remains.strays(), *left]
    killed = [one for one in ended if one.phase != ENDED]
    phases = Counter(one.phase for one in killed)
    told: dict[str, Any] = {
        "killed": {phase: phases[phase] for phase in PHASES},
        "commands": dict(Counter(" ".join((one.command[0], *one.command[3:])) for one in killed)),
        "ended before": len(ended) - len(killed),
        "no room": sum(any(words in one.said for words in NO_ROOM) for one in ended),
        "with their children": sum(one.whole for one in killed),
        "trouble": dict(trouble.done),
        **{name: dict(counted) for name, counted in remains.figures().items()},
        "submissions": len(remains.intents),
        "rounds to the end": rounds,
        "seconds": round(time.monotonic() - began),
        "seed": SEED,
    }
    torture.say(
        f"{len(killed)}/{KILLS} submitters killed: {len(runs)} runs, {len(lost)} lost, {len(doubled)} doubled; "
        f"{json.dumps(told)}"
    )
    wrong = {**lost, **{run_id: "; ".join(faults) for run_id, faults in doubled.items()}}
    assert not [*wrong, *strays], _words(ended, remains, wrong, strays)
    counted = {**told["killed"], **told["arrays"], **trouble.done}
    never = [name for name in (*PHASES, *EXPECTED) if not counted.get(name) and name != BETWEEN]
    assert not never, f"seed {SEED}: it never came to {', '.join(never)}"


def _wait_for_room(cluster: PrivateCluster) -> None:
    """Wait a while for the queue to have room for more."""
    deadline = time.monotonic() + ROOM_S
    while len(cluster.run("squeue", "-h", "-r", "-o", "%i").split()) > MOST_JOBS - ROOM:
        if time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _left(cluster: PrivateCluster) -> list[str]:
    """Wait for the jobs that have nothing to do any more to leave the queue; say which stay."""
    deadline = time.monotonic() + LONG_S
    while rows := cluster.run("squeue", "-h", "-r", "-o", "%i %j %T %r").splitlines():
        if time.monotonic() > deadline:
            return [f"left in the queue: {row}" for row in rows]
        time.sleep(0.2)
    return []


def _found(sweep: Command, file: Path) -> list[str]:
    """Say what `verify` finds, other than the file that a killed process was writing."""
    process = sweep.start("verify", file)
    shown, said = process.communicate(timeout=LONG_S)
    lines = shown.splitlines()
    assert process.returncode == (3 if lines else 0), said
    return [line for line in lines if HARMLESS not in line]


def _finish(sweep: Command, file: Path) -> int:
    """Submit and retry, undisturbed, until all runs are done; returns how often."""
    deadline = time.monotonic() + END_S
    calls = 0
    while states := {run["state"] for run in sweep.runs(file)} - {"done"}:
        assert time.monotonic() < deadline, f"seed {SEED}: after {END_S} s not done: {states}"
        again = "retry" if states & TO_RETRY else "submit" if states & TO_SUBMIT else None
        if again:
            calls += 1
            process = sweep.start(again, file, "--yes")
            _, said = process.communicate(timeout=LONG_S)
            assert process.returncode == 0 or any(words in said for words in NO_ROOM), said
        time.sleep(1.0)
    return calls


def _words(ended: list[Kill], remains: Remains, wrong: dict[str, str], strays: list[str]) -> str:
    """Say what is wrong, and at which moments the submitters were killed that had to do with it."""
    lines = [f"seed {SEED}", *strays]
    for run_id, words in wrong.items():
        tokens = {task.token for task in remains.sent(run_id)}
        lines.append(f"{run_id}: {words}")
        lines += [f"  {one}" for one in ended if tokens & set(one.tokens)]
    return "\n".join(lines)
