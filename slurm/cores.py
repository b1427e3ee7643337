"""Which cores of a job each of its workers computes on: its own, so that none waits for another's threads."""

import itertools
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def usable_cores() -> set[int]:
    """The cores this process may run on, none where the system does not say."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set()


def core_shares(cores: Collection[int], workers: int, threads: int) -> list[set[int]]:
    """Deal cores out to workers, neighbours together and every core once.

    None are dealt out, so that every worker may use all, where one would get fewer than the threads it computes with:
    a CPU's results depend on their number. Cores that other jobs may use too are shared out all the same; so are
    theirs.
    """
    if workers < 2 or len(cores) // workers < max(threads, 1):
        return []
    row = sorted(cores)
    bounds = [len(row) * worker // workers for worker in range(workers + 1)]
    return [set(row[start:end]) for start, end in itertools.pairwise(bounds)]


@contextmanager
def on_cores(cores: Collection[int] | None) -> Iterator[None]:
    """Have the processes started in this block run on these cores alone; None changes nothing.

    They inherit it, as their threads do from them. Only for a process of one thread.
    """
    if not cores:
        yield
        return
    own = usable_cores()
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
