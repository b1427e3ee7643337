"""Which nodes a sweep's jobs keep away from, by what happened there."""

from datetime import datetime, timedelta, timezone

import pytest

from sweep.status.bad_nodes import Event, judge
from trainer.records.attempt import Cause

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
FAULT, DEAD, LAUNCH, DONE = Cause.GPU_FAULT, Cause.NODE_FAIL, Cause.LAUNCH_FAILED, None


def story(*steps: tuple[str, str, Cause | None]) -> list[Event]:
    """Tell events a minute apart, each by node, job and cause."""
    return [Event(node, START + timedelta(minutes=n), job, cause) for n, (node, job, cause) in enumerate(steps)]


@pytest.mark.parametrize(
    ("steps", "bad"),
    [
        ([("a", "1", FAULT)], []),
        ([("a", "1", FAULT), ("a", "2", FAULT)], ["a"]),
        ([("a", "1", FAULT), ("b", "2", FAULT)], []),
        ([("a", "1", FAULT), ("a", "2", DONE), ("a", "3", FAULT)], []),
        ([("a", "1", DONE), ("a", "2", DEAD), ("a", "3", FAULT)], ["a"]),
        ([("a", "1", FAULT), ("a", "1", FAULT), ("a", "1", FAULT)], []),
        ([("a", "1", FAULT), ("a", "2", FAULT), ("a", "3", DONE)], []),
    ],
    ids=["once", "twice", "on two nodes", "not in a row", "since it worked", "runs of one job", "works again"],
)
def test_a_node_is_bad_when_two_jobs_in_a_row_died_there(
    steps: list[tuple[str, str, Cause | None]], bad: list[str]
) -> None:
    assert [node.name for node in judge(story(*steps))] == bad
    assert [node.name for node in judge(reversed(story(*steps)))] == bad, "in whatever order they are read"


def test_a_pool_whose_setup_fails_everywhere_makes_no_node_bad() -> None:
    """Launches failed twice on each of two nodes: that is the cluster file's fault, unless a third node has worked."""
    steps = [(node, f"{node}{number}", LAUNCH) for number in (1, 2) for node in ("a", "b")]
    assert judge(story(*steps)) == []
    assert [node.name for node in judge(story(*steps, ("c", "9", DONE)))] == ["a", "b"]
    assert judge(story(*steps[:2], ("a", "9", DONE), *steps[2:3])) == [], "once on each, since one worked"


def test_a_bad_node_is_told_with_its_count_and_last_cause() -> None:
    (node,) = judge(story(("a", "1", DEAD), ("a", "2", FAULT)))
    assert node.words == "a: 2 jobs in a row died there, the last of gpu_fault"
    assert node.last == START + timedelta(minutes=1)
