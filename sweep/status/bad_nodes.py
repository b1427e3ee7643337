"""Nodes where a sweep's jobs die of the machine's own faults, twice in a row with no success between."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

from slurm.jobs import Snapshot
from sweep.status.folder import SweepFolder
from sweep.status.look import Look
from sweep.status.state import RunStatus
from trainer.records.attempt import Attempt, AttemptRecord, Cause
from trainer.records.base import Versioned, now
from trainer.records.files import RecordError, read_json, write_json

FAULTS = (Cause.GPU_FAULT, Cause.NODE_FAIL, Cause.LAUNCH_FAILED)
TIMES = 2
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


class NodesRecord(Versioned):
    """nodes.json: what nodes did before `forgotten` is not held against them, for they have been mended."""

    forgotten: datetime


class BadNode(NamedTuple):
    """jobs: those that died there since the last success; cause and last: of the newest."""

    name: str
    jobs: int
    cause: Cause
    last: datetime

    @property
    def words(self) -> str:
        return f"{self.name}: {self.jobs} jobs in a row died there, the last of {self.cause.value}"


class Event(NamedTuple):
    """How a job fared on a node; cause: None where a run was trained."""

    node: str
    when: datetime
    job: str
    cause: Cause | None = None


def bad_nodes(folder: SweepFolder, seen: Look) -> list[BadNode]:
    """The nodes to keep a sweep's further jobs from, by what was looked at."""
    since = forgotten(folder)
    return judge(event for event in _events(folder, seen) if event.when > since)


def judge(events: Iterable[Event]) -> list[BadNode]:
    """Find the nodes whose newest jobs died, TIMES or more in a row. Pure.

    A launch that fails may be the fault of the pool's own lines: it counts once some other node has trained a run.
    """
    by_node: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.when):
        by_node.setdefault(event.node, []).append(event)
    fine = {name for name, those in by_node.items() if any(event.cause is None for event in those)}
    found = []
    for name, those in sorted(by_node.items()):
        after = max((number for number, event in enumerate(those, 1) if event.cause is None), default=0)
        faults = [e for e in those[after:] if e.cause is not Cause.LAUNCH_FAILED or fine - {name}]
        jobs = {event.job for event in faults}
        if len(jobs) >= TIMES and faults[-1].cause:
            found.append(BadNode(name, len(jobs), faults[-1].cause, faults[-1].when))
    return found


def forgotten(folder: SweepFolder) -> datetime:
    """Since when nodes are judged; what cannot be read any more forgets nothing."""
    try:
        record = read_json(folder.nodes, NodesRecord)
    except RecordError:
        return _LONG_AGO
    return record.forgotten if record else _LONG_AGO


def forget(folder: SweepFolder) -> None:
    """Hold nothing that happened so far against any node. Raises OSError."""
    write_json(folder.nodes, NodesRecord(forgotten=now()))


def _events(folder: SweepFolder, seen: Look) -> Iterator[Event]:
    for status in seen.statuses:
        found = seen.evidence[status.id]
        newest = found.attempt
        if found.result is not None and found.result.attempts:
            *earlier, last = found.result.attempts
            failed = [attempt.number for attempt in earlier if attempt.outcome == "failed"]
            yield from _of_earlier(folder, status.id, failed)
            yield Event(last.host, last.ended or last.started, last.job)
            continue
        yield from _of_earlier(folder, status.id, range(1, newest.number if newest else 1))
        if status.cause in FAULTS and status.node:
            yield Event(status.node, _when(status, newest, seen.queue), status.job or status.id, status.cause)


def _of_earlier(folder: SweepFolder, run_id: str, numbers: Iterable[int]) -> Iterator[Event]:
    """The faults that ended a run's earlier attempts; of most runs there are none."""
    for number in numbers:
        try:
            record = read_json(folder.run(run_id).attempt(number), AttemptRecord)
        except RecordError:
            continue
        if record is not None and record.cause in FAULTS:
            yield Event(record.host, record.ended or record.started, record.job, record.cause)


def _when(status: RunStatus, newest: Attempt | None, queue: Snapshot) -> datetime:
    """When a run's job died: by its attempt, else by what Slurm said of the job."""
    if newest is not None and newest.job == status.job:
        return newest.ended or status.updated or newest.started
    rows = (row for tasks in queue.tasks.values() for row in tasks.values() if row.job == status.job)
    return next((row.ended or row.seen for row in rows), now())
