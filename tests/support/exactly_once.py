"""Whether every run of a sweep was done exactly once, by what lies on disk: intents, attempts, results, the jobs' logs,
Slurm's accounting, and the passes that the runs' networks have noted (`networks:watched`). Asks nothing of the product
but its records.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from conftest import read

from slurm.private_cluster.cluster import PrivateCluster
from trainer.records.run import RunFolder

BEGINS = re.compile(r" INFO (\S+) attempt (\d+) on .*from epoch \d+ of \d+$", re.MULTILINE)
LIMIT = "job submit limit"  # in Slurm's sentence of a refusal


class Accounted(NamedTuple):
    """A task as accounting has it, its last start; times in seconds since 1970, None where there is none."""

    tag: str
    array: str
    index: int | None
    start: float | None
    end: float | None


class Sent(NamedTuple):
    """One task of an array that carries a run. created: when its intent was written."""

    token: str
    created: float
    tag: str
    index: int
    pool: str


class Worker(NamedTuple):
    """A process that trained a run. first, last: when it made its first and its last pass."""

    pid: int
    first: float
    last: float


class Remains:
    """What a sweep has left in a folder, and in a cluster's accounting."""

    def __init__(self, folder: Path, accounted: Iterable[Accounted], runs: Sequence[str]) -> None:
        self.folder = folder
        self.runs = runs
        self.intents = [read(path) for path in sorted(folder.glob("submissions/*.json"))]
        self.accounted = [row for row in accounted if row.tag.startswith(f"{folder.name}.")]
        self.records = {run_id: _records(RunFolder(folder / "runs" / run_id)) for run_id in runs}
        self.results = {run_id: read(RunFolder(folder / "runs" / run_id).result) for run_id in runs}

    def lost(self) -> dict[str, str]:
        """Say which runs have no result, by id, and what there is instead."""
        ends = {
            run_id: [(record["submission"], record["outcome"], record["message"]) for record in records]
            for run_id, records in self.records.items()
        }
        return {run_id: f"has no result, but {ends[run_id]}" for run_id in self.runs if self.results[run_id] is None}

    def doubled(self) -> dict[str, list[str]]:
        """Say by id which runs were done, worked on or sent more than once, or were counted wrongly."""
        logs = [path.read_text() for path in self.folder.glob("submissions/*/*/*_log.out")]
        begun = Counter((run_id, int(number)) for text in logs for run_id, number in BEGINS.findall(text))
        found: dict[str, list[str]] = {}
        for run_id in self.runs:
            again = [
                f"attempt {n} was begun {count} times" for (of, n), count in begun.items() if of == run_id and count > 1
            ]
            faults = [*self._at_work(run_id), *self._at_once(run_id), *self._sent_early(run_id), *again]
            if faults:
                found[run_id] = faults
        aside = [path.name for path in self.folder.glob("superseded/*")]
        return found | ({"superseded": aside} if aside else {})

    def strays(self) -> list[str]:
        """Name what Slurm had and no intent tells of, or tells otherwise: one array a tag, the one noted."""
        arrays = {array["tag"]: array for intent in self.intents for array in intent["arrays"]}
        faults = []
        ids: dict[str, set[str]] = {}
        for row in self.accounted:
            ids.setdefault(row.tag, set()).add(row.array)
        for tag, those in ids.items():
            noted = arrays.get(tag)
            if len(those) > 1:
                faults.append(f"{tag} was submitted as {', '.join(sorted(those))}")
            elif noted is None:
                faults.append(f"{tag} is in no intent")
            elif noted["refused"] or noted["job"] not in (None, *those) or noted["asked"] is None:
                faults.append(f"{tag} is array {', '.join(those)}, and noted as {noted['job']}, {noted['refused']}")
        return faults

    def _at_work(self, run_id: str) -> Iterator[str]:
        """Hold the attempts to one after the other, of which the last alone came to the end."""
        records, result = self.records[run_id], self.results[run_id]
        for one, after in pairwise(records):
            if one["ended"] is None or _seconds(one["ended"]) > _seconds(after["started"]):
                yield f"attempt {after['number']} began before attempt {one['number']} ended"
            if one["outcome"] == "done":
                yield f"attempt {after['number']} began after attempt {one['number']} was done"
        numbers = list(range(1, len(records) + 1))
        if [record["number"] for record in records] != numbers:
            yield f"attempts {[record['number'] for record in records]}"
        if result is None:
            return
        if [attempt["number"] for attempt in result["attempts"]] != numbers:
            yield "its result counts other attempts"
        outcomes = [attempt["outcome"] for attempt in result["attempts"]]
        if outcomes.count("done") != 1 or outcomes[-1] != "done":
            yield f"its result has the outcomes {outcomes}"

    def _at_once(self, run_id: str) -> Iterator[str]:
        """Tell which processes trained a run at the same time, or without an attempt of their own."""
        workers = self.workers(run_id)
        for one, after in pairwise(workers):
            if after.first <= one.last:
                yield f"processes {one.pid} and {after.pid} trained it at the same time"
        attempts = Counter(record["process"]["pid"] for record in self.records[run_id])
        for pid, times in Counter(worker.pid for worker in workers).items():
            if times > attempts[pid]:
                yield f"process {pid} trained it without an attempt"

    def workers(self, run_id: str) -> list[Worker]:
        """List the processes that trained a run, by their first pass."""
        found = []
        for task in self.sent(run_id):
            number = task.tag.rpartition(".")[2]
            path = self.folder / "submissions" / task.token / number / f"passes-{task.index}"
            passes: dict[int, list[float]] = {}
            for line in path.read_text().splitlines() if path.exists() else ():
                of, pid, moment = line.split()
                if of == run_id:
                    passes.setdefault(int(pid), []).append(float(moment))
            found += [Worker(pid, min(moments), max(moments)) for pid, moments in passes.items()]
        return sorted(found, key=lambda worker: worker.first)

    def _sent_early(self, run_id: str) -> Iterator[str]:
        """Tell where a run was sent again while a job of an earlier submission still had it."""
        sent = [task for task in self.sent(run_id) if self._rows(task)]
        for task in sent:
            for later in sent:
                if later.created > task.created and any(
                    self._held(run_id, task, row, later) for row in self._rows(task)
                ):
                    yield f"{later.tag} was sent while {task.tag} task {task.index} had it"

    def sent(self, run_id: str) -> list[Sent]:
        """List the tasks that carry a run, in the order in which they were to be sent."""
        return [
            Sent(intent["token"], _seconds(intent["created"]), array["tag"], index, array["pool"])
            for intent in self.intents
            for array in intent["arrays"]
            for index, runs in enumerate(array["tasks"])
            if run_id in runs
        ]

    def _rows(self, task: Sent) -> list[Accounted]:
        return [row for row in self.accounted if (row.tag, row.index) == (task.tag, task.index)]

    def _held(self, run_id: str, task: Sent, row: Accounted, later: Sent) -> bool:
        """Tell whether a task still had a run when it was sent again: it has worked since, and not only on others."""
        if row.start is None or (row.end is not None and row.end <= later.created):
            return False
        attempts = [record for record in self.records[run_id] if record["submission"] == task.token]
        if not attempts or attempts[-1]["ended"] is None or _seconds(attempts[-1]["ended"]) > later.created:
            return True
        cut_off = attempts[-1]["outcome"] == "interrupted" and attempts[-1]["told_to_stop"]
        return bool(cut_off and row.start > later.created)

    def figures(self) -> dict[str, Counter[str]]:
        """Count what was sent and what came of it."""
        arrays = [array for intent in self.intents for array in intent["arrays"]]
        tags = {row.tag for row in self.accounted}
        refusals = [array["refused"] for array in arrays if array["refused"]]
        won: Counter[str] = Counter()
        for run_id, result in self.results.items():
            if result is not None:
                token = self.records[run_id][-1]["submission"]
                raced = [task.pool for task in self.sent(run_id) if task.token == token and task.tag in tags]
                won[f"{result['hardware']['pool']} of {'+'.join(raced)}"] += 1
        return {
            "arrays": Counter(
                {
                    "written": len(arrays),
                    "taken": len(tags),
                    "taken, unknown to their submitter": sum(a["job"] is None and a["tag"] in tags for a in arrays),
                    "refused by the limit": sum(LIMIT in words for words in refusals),
                    "refused otherwise": sum(LIMIT not in words for words in refusals),
                }
            ),
            "won": won,
            "attempts": Counter(record["outcome"] for records in self.records.values() for record in records),
            "restarts": Counter(str(record["restarts"]) for records in self.records.values() for record in records),
        }


def _records(folder: RunFolder) -> list[Any]:
    return [read(folder.attempt(number)) for number in folder.attempt_numbers()]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def accounted(cluster: PrivateCluster) -> Iterator[Accounted]:
    """List the tasks of all arrays there ever were on a cluster."""
    shown = cluster.run(
        *("sacct", "-a", "-n", "-P", "-X", "-S", "now-1days", "--format=JobID,Start,End,JobName"), timeout_s=60
    )
    for line in shown.splitlines():
        job, start, end, tag = line.split("|", 3)
        array, _, index = job.partition("_")
        times = [float(moment) if moment.isdecimal() else None for moment in (start, end)]
        yield Accounted(tag, array, int(index) if index.isdecimal() else None, *times)
