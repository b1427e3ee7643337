"""Ask Slurm about our job arrays: one squeue and one sacct at most, merged into the newest word on every task.

Rows are matched by the job's name, the array's tag: job ids may be unknown (sbatch was cut off) or given anew (after a
wipe). squeue has the last word on what lives; sacct lags by seconds, and has the last word on how a task ended.
Everything but `refresh` is pure. Measured on Slurm 22.05.8: a requeue renews the submit time, in squeue and in sacct,
so the submit time tells a task's incarnations apart.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from slurm.answers import (
    SACCT_COLUMNS,
    SACCT_FIELDS,
    SACCT_HEADER,
    SQUEUE_COLUMNS,
    SQUEUE_FIELDS,
    SQUEUE_HEADER,
    TERMINAL,
    WAITING,
    Tasks,
    indices,
    listed,
    listed_of_each,
    parse_sacct,
    parse_squeue,
)
from slurm.commands import AccountingDisabled, NoAnswer, NoSuchJob, SlurmError, call, on
from slurm.jobs import Answer, ArrayRecord, Origin, Snapshot, TaskRow
from slurm.origin import cluster_name, is_named
from slurm.timeouts import STEPS_LAG_S
from trainer.records.base import now

LONGEST_LIST = 100_000  # characters; Linux takes 131,071 in one argument


def refresh(arrays: Sequence[ArrayRecord], known: Snapshot, *, since: datetime) -> Snapshot:
    """Ask Slurm about arrays, and return all that is known then.

    since: no array was submitted before. A query that fails says nothing of the jobs: what was known stays.
    """
    arrays = [array for array in arrays if array.asked is not None and array.refused is None]
    if not arrays:
        return known
    moment = now()
    snapshot = _ask_squeue(arrays, known, moment)
    unsettled = [array for array in arrays if _unsettled(array, snapshot)]
    if not unsettled:
        return snapshot.model_copy(update={"sacct": snapshot.sacct.model_copy(update={"problem": None})})
    return _ask_sacct(unsettled, snapshot, moment, since)


def settled(array: ArrayRecord, snapshot: Snapshot) -> bool:
    """Tell whether Slurm has said its last word on every task of an array, so that nobody need ask again."""
    rows = snapshot.tasks.get(array.tag, {})
    return all(index in rows and final(rows[index], snapshot) for index in range(len(array.tasks)))


def _ask_squeue(arrays: Sequence[ArrayRecord], known: Snapshot, moment: datetime) -> Snapshot:
    tags = [array.tag for array in arrays]
    names = ",".join(tags)
    fields = SQUEUE_FIELDS.format(name=max(len(tag) for tag in tags) + 1)
    chosen = [f"--name={names}"] if len(names) <= LONGEST_LIST else []
    try:
        clusters = _clusters(arrays)
        answer = call(["squeue", *on(clusters), "-a", "-r", "-t", "all", *chosen, "-O", fields])
        if clusters is None:
            text = listed(answer, SQUEUE_HEADER, SQUEUE_COLUMNS)
        else:
            text = listed_of_each(answer, SQUEUE_HEADER, SQUEUE_COLUMNS, clusters.split(","))
    except SlurmError as error:
        return known.model_copy(update={"squeue": _failed(known.squeue, "squeue", error, moment)})
    found = parse_squeue(text, tags, moment)
    tasks = dict(known.tasks)
    for tag, rows in found.items():
        merged = dict(tasks.get(tag, {}))
        for index, row in rows.items():
            merged[index] = _with_squeue(merged.get(index), row)
        tasks[tag] = merged
    present = {**known.present, **{tag: sorted(rows) for tag, rows in found.items()}}
    squeue = Answer(answered=moment, asked=moment)
    return known.model_copy(update={"squeue": squeue, "tasks": _without_empty(tasks), "present": present})


def _ask_sacct(arrays: Sequence[ArrayRecord], known: Snapshot, moment: datetime, since: datetime) -> Snapshot:
    tags = [array.tag for array in arrays]
    try:
        among = [*on(_clusters(arrays)), *_chosen(arrays, known, moment, since)]
        answer = call(["sacct", "-a", "-P", f"--format={SACCT_FIELDS}", *among])
        text = listed(answer, SACCT_HEADER, SACCT_COLUMNS)
    except AccountingDisabled:
        return known.model_copy(update={"sacct": Answer(asked=moment, disabled=True)})
    except SlurmError as error:
        return known.model_copy(update={"sacct": _failed(known.sacct, "sacct", error, moment)})
    accounted = parse_sacct(text, tags, moment)
    tasks = dict(known.tasks)
    for array in arrays:
        merged = dict(tasks.get(array.tag, {}))
        live = _listed_alive(array.tag, known, moment)
        own = accounted.tasks[array.tag]
        for index, row in own.items():
            if index not in live:
                merged[index] = _with_sacct(merged.get(index), row)
        for covered, row in accounted.ranges.get(array.tag, []):
            job = row.job.partition("_")[0]
            for index in range(len(array.tasks)):
                if index not in live and index not in own and (covered is None or index in covered):
                    its = row.model_copy(update={"job": f"{job}_{index}"})
                    merged[index] = _with_sacct(merged.get(index), its)
        tasks[array.tag] = merged
    sacct = Answer(answered=moment, asked=moment)
    return known.model_copy(update={"sacct": sacct, "tasks": _without_empty(tasks)})


def tasks_there(origin: Origin | None, array: ArrayRecord, job: str | None) -> set[int] | str:
    """The tasks of an array that Slurm shows when it is asked by number, not by name; or why that cannot be told.

    A number that is another's by now shows none. An array that was sent to a cluster by its name is asked for there.
    """
    clusters = array.resources.clusters
    try:
        here = cluster_name()
        if clusters is None and origin is not None and origin.cluster not in (None, here):
            return f"its jobs are on cluster {origin.cluster}, and this is {here}"
        if job is None:
            return set()
        shown = call(["scontrol", *on(clusters), "-o", "show", "job", job])
    except NoSuchJob:
        return set()
    except SlurmError as error:
        return f"is in no list, and that it is gone is not confirmed: {error}"
    every = set(range(len(array.tasks)))
    there: set[int] = set()
    for line in filter(lambda line: is_named(line, array.tag), shown.splitlines()):
        task = re.search(r"\bArrayTaskId=(\S+)", line)
        there |= (indices(task[1]) if task else None) or every
    return there


def _clusters(arrays: Sequence[ArrayRecord]) -> str | None:
    """Name the clusters that hold arrays; None for the one that Slurm's commands speak to. Raises SlurmError."""
    named = {array.resources.clusters for array in arrays}
    if named == {None}:
        return None
    here = cluster_name() if None in named else None
    if None in named and here is None:
        raise SlurmError("scontrol does not name this cluster, so it cannot be asked beside another")
    return ",".join(sorted({name or here or "" for name in named}))


def _chosen(arrays: Sequence[ArrayRecord], known: Snapshot, moment: datetime, since: datetime) -> list[str]:
    """Choose the rows sacct is asked for: by job id, which also shows jobs that were never eligible, or by name."""
    ids = {_job_id(array, known) for array in arrays}
    if None not in ids:
        return ["-j", ",".join(sorted(str(job) for job in ids))]
    age_s = max(0, int((moment - since).total_seconds())) + 3600  # in sacct's own clock and zone: -S takes no offset
    names = ",".join(array.tag for array in arrays)
    return [*([f"--name={names}"] if len(names) <= LONGEST_LIST else []), "-S", f"now-{age_s}seconds"]


def _job_id(array: ArrayRecord, known: Snapshot) -> str | None:
    row = next(iter(known.tasks.get(array.tag, {}).values()), None)
    return row.job.partition("_")[0] if row else array.job


def _failed(before: Answer, name: str, error: SlurmError, moment: datetime) -> Answer:
    words = str(error).removeprefix(f"{name}: error: ").removeprefix("slurm_load_jobs error: ")
    problem = words if isinstance(error, NoAnswer) else f"{name} failed: {words}"
    return before.model_copy(update={"asked": moment, "problem": problem, "disabled": False})


def _unsettled(array: ArrayRecord, snapshot: Snapshot) -> bool:
    """Tell whether squeue left something open about an array."""
    rows = snapshot.tasks.get(array.tag, {})
    live = _listed_alive(array.tag, snapshot, snapshot.squeue.asked)
    return any(
        index not in live and (index not in rows or not final(rows[index], snapshot))
        for index in range(len(array.tasks))
    )


def _listed_alive(tag: str, snapshot: Snapshot, moment: datetime | None) -> set[int]:
    """List the tasks that squeue showed alive at a moment; none if it did not answer then."""
    if snapshot.squeue.answered != moment:
        return set()
    rows = snapshot.tasks.get(tag, {})
    return {index for index in snapshot.present.get(tag, []) if index in rows and rows[index].state not in TERMINAL}


def final(row: TaskRow, snapshot: Snapshot) -> bool:
    """Tell whether a row is Slurm's last word: nothing more will be known, and the task will not start anew.

    While a task is requeued, sacct shows its last incarnation as ended: only squeue, asked at the same time, shows the
    next one.
    """
    if row.state not in TERMINAL or not (row.source == "sacct" or snapshot.sacct.disabled):
        return False
    if snapshot.squeue.answered is None or row.seen > snapshot.squeue.answered:
        return False
    running = any(step.state == "RUNNING" for step in row.steps)
    return not running or (row.ended is not None and row.seen - row.ended > timedelta(seconds=STEPS_LAG_S))


def _with_squeue(old: TaskRow | None, new: TaskRow) -> TaskRow:
    """Merge squeue's newest row: it counts, unless it only says with less that the same incarnation has ended."""
    if old is None or old.source != "sacct" or not _both_ended(old, new) or not _same(old, new):
        return new
    return _enriched(old, new).model_copy(update={"seen": new.seen})


def _with_sacct(old: TaskRow | None, new: TaskRow) -> TaskRow:
    """Merge sacct's row on a task that squeue does not show alive: no older word undoes a newer one."""
    if old is None:
        return new
    if not _same(old, new):
        return new if old.submitted and new.submitted and new.submitted > old.submitted else old
    if new.state in TERMINAL:
        return _enriched(new, old)
    if old.state in TERMINAL:
        return old
    lags = old.state not in WAITING and new.state in WAITING
    shown = {"state": old.state, "node": old.node, "started": old.started} if lags else {}
    return new.model_copy(update={"restarts": old.restarts, "reason": new.reason or old.reason, **shown})


def _enriched(accounted: TaskRow, other: TaskRow) -> TaskRow:
    """Add to sacct's terminal row what it lacks or garbles, from another row of the same incarnation.

    sacct has no restart count, takes 128 off exit codes above it, and at times gives no derived code.
    """
    more: dict[str, object] = {}
    if accounted.restarts is None:
        more["restarts"] = other.restarts
    if accounted.state == "FAILED" and other.state == "FAILED":
        whole = (other.exit_code or "").partition(":")[0]
        if whole.isdecimal() and int(whole) > 128:
            more["exit_code"] = other.exit_code
        if accounted.derived_exit_code in (None, "0:0"):
            more["derived_exit_code"] = other.derived_exit_code
        more["reason"] = accounted.reason or other.reason
    return accounted.model_copy(update=more)


def _same(old: TaskRow, new: TaskRow) -> bool:
    """Tell whether two rows are of the same incarnation of a task."""
    if old.restarts is not None and new.restarts is not None and old.restarts != new.restarts:
        return False
    return old.submitted is None or new.submitted is None or old.submitted == new.submitted


def _both_ended(old: TaskRow, new: TaskRow) -> bool:
    return old.state in TERMINAL and new.state in TERMINAL


def _without_empty(tasks: Mapping[str, dict[int, TaskRow]]) -> Tasks:
    return {tag: rows for tag, rows in tasks.items() if rows}
