"""What trying a run again comes to, by the cause of its failure: more memory, more time, another node, or nothing."""

from typing import Any

import pytest
from result_fixtures import planned_run

from slurm.jobs import Resources
from slurm.limits import ClusterLimits, NodeGroup, PartitionLimits
from slurm.pools import Pool
from sweep.config.schema import PlacedRun
from sweep.plan.rows import PlanRow
from sweep.status.state import RunStatus, State
from sweep.submit.remedies import Change, Ground, choose, remedy
from trainer.records.attempt import Cause

PLACED = PlacedRun(planned_run("resnet18", "cifar10", 0.1, 42), "v100", "v100", 32, 5000, 10_000)
RUN_ID = PLACED.id
POOLS = {
    "p100": Pool(device="p100", partition="gpu", gpu_memory_gb=12),
    "v100": Pool(device="v100", partition="gpu", memory_gb=16, time_limit_min=600, gpu_memory_gb=16),
    "v100-32": Pool(device="v100", partition="gpu", gpu_memory_gb=32),
}
NODES = (NodeGroup(3, 3, 16, 40.0, {"gpu:v100": 4}, frozenset()),)
PARTITION = PartitionLimits("gpu", True, 1440, None, None, NODES)
LIMITS = ClusterLimits(1001, 10_000, 10.0, {"gpu": PARTITION})
USUAL = Resources(partition="gpu", memory_gb=16, time_limit_min=600)


def row(state: State = State.FAILED, cause: Cause | None = None, **known: Any) -> PlanRow:
    return PlanRow(PLACED, RunStatus(PLACED.spec.run, state, cause, epochs=180, **known), 100.0)


def ground(pool: str = "v100", **had: Any) -> Ground:
    last = USUAL.model_copy(update=had)
    return Ground(POOLS, dict.fromkeys(POOLS, USUAL), LIMITS, {RUN_ID: last}, {RUN_ID: pool})


CASES = {
    "memory": (row(cause=Cause.HOST_OOM), ground(), Change(memory_gb=32), "32 GB of memory instead of 16"),
    "memory, up to the node": (row(cause=Cause.HOST_OOM), ground(memory_gb=32), Change(memory_gb=40), "40 GB"),
    "time": (
        row(cause=Cause.TIMEOUT, epoch=9),
        ground(),
        Change(time_limit_min=1200),
        "goes on after epoch 9 with 1200",
    ),
    "time, up to the limit": (
        row(cause=Cause.TIMEOUT),
        ground(time_limit_min=1000),
        Change(time_limit_min=1440),
        "1440",
    ),
    "time, on a cluster no pool names now": (
        row(cause=Cause.TIMEOUT),
        ground(time_limit_min=1000, clusters="gone"),
        Change(time_limit_min=2000),
        "2000",
    ),
    "time, the site's": (
        row(cause=Cause.TIMEOUT),
        ground(time_limit_min=None),
        Change(),
        "give it a 'time_limit_min'",
    ),
    "GPU memory": (row(cause=Cause.CUDA_OOM), ground("p100"), Change(pool="v100"), "in pool v100 with 16 GB a GPU"),
    "node": (row(State.INTERRUPTED, Cause.NODE_FAIL, node="n1"), ground(), Change(exclude=("n1",)), "another node"),
    "GPU": (row(cause=Cause.GPU_FAULT, node="n1"), ground(), Change(exclude=("n1",)), "another node"),
    "second node": (
        row(State.INTERRUPTED, Cause.NODE_FAIL, node="n1"),
        ground(exclude=["n2"]),
        Change(exclude=("n1", "n2")),
        "n1, n2",
    ),
    "no node left": (
        row(State.INTERRUPTED, Cause.NODE_FAIL, node="n1"),
        ground(exclude=["n2", "n3"]),
        Change(),
        "no other node",
    ),
    "killed, memory kept": (row(cause=Cause.KILLED), ground(memory_gb=24), Change(memory_gb=24), "starts again"),
}


@pytest.mark.parametrize(("tried", "on", "change", "words"), CASES.values(), ids=CASES.keys())
def test_each_cause_has_its_remedy(tried: PlanRow, on: Ground, change: Change, words: str) -> None:
    """Within what the partition allows, keeping what an earlier retry gave, and said before it is done."""
    found = remedy(tried, asked=False, ground=on)
    assert found.again
    assert found.change == change
    assert words in found.words


HOPELESS = {
    "all the memory there is": (row(cause=Cause.HOST_OOM), ground(memory_gb=40), "needs another pool"),
    "no larger GPU": (row(cause=Cause.CUDA_OOM), ground("v100-32"), "no pool has more than the 32 GB"),
    "no checkpoint in all the time": (row(cause=Cause.TIMEOUT), ground(time_limit_min=1440), "no checkpoint within"),
    "exception": (row(cause=Cause.EXCEPTION), ground(), "raised an exception and would again"),
    "diverged": (row(cause=Cause.DIVERGED), ground(), "change the recipe"),
}


@pytest.mark.parametrize(("tried", "on", "words"), HOPELESS.values(), ids=HOPELESS.keys())
def test_what_would_only_fail_again_is_not_tried(tried: PlanRow, on: Ground, words: str) -> None:
    """The sentence says why, and what would help."""
    found = remedy(tried, asked=False, ground=on)
    assert not found.again
    assert words in found.words


def test_an_exception_is_retried_only_when_asked() -> None:
    """By name, or by asking for every failed run; what diverged only by name."""
    rows = [row(cause=Cause.EXCEPTION)]
    assert [found.again for found in choose(rows, [], every=False, ground=None)] == [False]
    assert [found.again for found in choose(rows, [], every=True, ground=None)] == [True]
    assert [found.again for found in choose(rows, [RUN_ID], every=False, ground=None)] == [True]
    assert [found.again for found in choose([row(cause=Cause.DIVERGED)], [], every=True, ground=None)] == [False]


def test_failed_interrupted_and_stalled_runs_are_chosen_and_no_others() -> None:
    """What is done, queued, planned or cancelled needs no retry."""
    chosen = [state for state in State if choose([row(state)], [], every=False, ground=None)]
    assert chosen == [State.STALLED, State.INTERRUPTED, State.FAILED]


def test_a_change_is_made_on_the_pools_own_resources() -> None:
    """What is not changed stays as the cluster file has it now."""
    changed = Change(memory_gb=32, exclude=("n1",)).apply(USUAL)
    assert (changed.memory_gb, changed.exclude, changed.time_limit_min) == (32, ["n1"], 600)
