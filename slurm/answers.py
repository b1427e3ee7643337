"""What squeue and sacct print, read into rows. Pure."""

import re
from collections.abc import Collection
from datetime import datetime, timezone
from functools import lru_cache
from typing import NamedTuple

from slurm.commands import SlurmError
from slurm.jobs import StepRow, TaskRow
from slurm.origin import user_name

TERMINAL = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
)
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"}
    | {"SPECIAL_EXIT", "STOPPED", "SUSPENDED"}
)
NOT_STARTED = WAITING - {"SUSPENDED", "STOPPED", "CONFIGURING", "POWER_UP_NODE"}

# Widths cut what is longer, and squeue's default is 20: each must hold the longest value there is. Names come last.
SQUEUE_FIELDS = (
    "ArrayJobID:12|,ArrayTaskID:12|,State:20|,Reason:120|,NodeList:64|,RestartCnt:10|,SubmitTime:20|,StartTime:20|,"
    "EndTime:20|,exit_code:10|,DerivedEC:10|,Name:{name}"
)
SQUEUE_HEADER, SACCT_HEADER = "ARRAY_JOB_I", "JobID|State|"
SQUEUE_COLUMNS, SACCT_COLUMNS = 12, 10
SACCT_FIELDS = "JobID,State,ExitCode,DerivedExitCode,NodeList,Submit,Start,End,Reason,JobName"
Tasks = dict[str, dict[int, TaskRow]]


class Range(NamedTuple):
    """sacct's one row for the tasks of an array that have none of their own; indices: None when it was cut short."""

    indices: frozenset[int] | None
    row: TaskRow


class Accounted(NamedTuple):
    """What sacct says: tasks by tag and index, and the rows that speak for the others of a tag."""

    tasks: Tasks
    ranges: dict[str, list[Range]]


def listed(text: str, header: str, columns: int) -> str:
    """Return what a command listed below its header; lines of others around it are left out.

    Raises SlurmError where there is no header: an empty answer, another program's, or that of a site's wrapper which
    failed, says nothing of any job; nor does a list that is cut short.
    """
    lines = [line.strip() for line in text.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.startswith(header)]
    if not starts:
        first = next(filter(None, lines), "nothing")
        raise SlurmError(f"it printed no list, but: {first[:60]}")
    below = [line for line in lines[starts[0] + 1 :] if "|" in line]
    cut = next((line for line in below if line.count("|") < columns - 1), None)
    if cut is not None:
        raise SlurmError(f"its list is cut short, at '{cut[-60:]}'")
    return "\n".join(below)


def listed_of_each(text: str, header: str, columns: int, clusters: Collection[str]) -> str:
    """Return what squeue listed of several clusters: each has a line with its name above its header.

    Raises SlurmError where one is missing: squeue goes on without a cluster that does not answer, with exit code 0.
    """
    _, *parts = re.split(r"^CLUSTER: (\S+)\s*$", text, flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    missing = sorted(set(clusters) - found.keys())
    if missing:
        raise SlurmError(f"it printed nothing of cluster {', '.join(missing)}")
    return "\n".join(listed(found[name], header, columns) for name in clusters)


def parse_squeue(text: str, tags: Collection[str], seen: datetime) -> Tasks:
    """Read the answer of squeue -O SQUEUE_FIELDS; rows of other names and rows it cannot read are passed over."""
    found: Tasks = {tag: {} for tag in tags}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", 11)]
        if len(fields) != 12 or fields[11] not in found or not fields[0].isdecimal() or not fields[1].isdecimal():
            continue
        job, task, state, reason, node, restarts, submitted, started, ended, exit_code, derived, tag = fields
        terminal = state in TERMINAL
        row = TaskRow.model_construct(
            job=f"{job}_{task}",
            state=state,
            seen=seen,
            source="squeue",
            reason=None if reason in ("", "None") else reason,
            node=node or None,
            exit_code=_status(exit_code) if terminal else None,
            derived_exit_code=_status(derived) if terminal else None,
            restarts=int(restarts) if restarts.isdecimal() else None,
            submitted=_time(submitted),
            started=None if state in NOT_STARTED else _time(started),  # of a pending task, a forecast
            ended=_time(ended) if terminal else None,  # of a running one, its time limit
            cancelled_by=None,
            steps=[],
        )
        _keep_newer(found[tag], int(task), row)
    return found


def parse_sacct(text: str, tags: Collection[str], seen: datetime) -> Accounted:
    """Read the answer of sacct -P -n --format=SACCT_FIELDS, with steps; other names' rows are dropped with their steps.

    Steps have names of their own: each belongs to the last row before it that has its job id.
    """
    tasks: Tasks = {tag: {} for tag in tags}
    ranges: dict[str, list[Range]] = {}
    steps_of: dict[str, list[StepRow]] = {}
    for line in text.splitlines():
        fields = line.split("|", 9)
        if len(fields) != 10:
            continue
        job, words, exit_code, derived, node, submitted, started, ended, reason, tag = fields
        state, _, by = words.partition(" by ")
        step = ""
        if "[" not in job:  # a range that was cut short holds dots as well
            job, _, step = job.partition(".")
        if step:
            if job in steps_of:
                steps_of[job].append(_step(step, state, exit_code))
            continue
        steps_of.pop(job, None)
        _, _, task = job.partition("_")
        if tag not in tasks or not (task.isdecimal() or task.startswith("[")):
            continue
        row = TaskRow.model_construct(
            job=job,
            state=state,
            seen=seen,
            source="sacct",
            reason=reason if state == "PENDING" and reason not in ("", "None") else None,
            node=None if node in ("", "None assigned") else node,
            exit_code=exit_code or None,
            derived_exit_code=derived or None,
            restarts=None,
            submitted=_time(submitted),
            started=_time(started),
            ended=_time(ended),
            cancelled_by=_who(by) if by else None,
            steps=[],
        )
        if not task.isdecimal():
            ranges.setdefault(tag, []).append(Range(indices(task), row))
            continue
        if _keep_newer(tasks[tag], int(task), row):
            steps_of[job] = row.steps
    return Accounted(tasks, ranges)


def _keep_newer(rows: dict[int, TaskRow], index: int, row: TaskRow) -> bool:
    old = rows.get(index)
    if old is not None and old.submitted and row.submitted and row.submitted < old.submitted:
        return False
    rows[index] = row
    return True


@lru_cache(maxsize=1024)
def _step(name: str, state: str, exit_code: str) -> StepRow:
    """Make a step's row once for all that read alike: most do."""
    return StepRow.model_construct(name=name, state=state, exit_code=exit_code)


@lru_cache(maxsize=4096)
def _time(text: str) -> datetime | None:
    """Read a time as seconds since 1970, as we ask for, or as local time, where Slurm does not listen."""
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), timezone.utc) if int(text) else None
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None  # "N/A", "Unknown", "None"


@lru_cache(maxsize=256)
def _status(text: str) -> str | None:
    """Write squeue's wait status as sacct would: "code:signal". Newer squeues (24.11) do so themselves."""
    if re.fullmatch(r"\d+:\d+", text):
        return text
    if not text.isdecimal():
        return None  # -2 is Slurm's for "no value"
    number = int(text) & 0x7F
    return f"0:{number}" if number else f"{int(text) >> 8 & 0xFF}:0"


@lru_cache(maxsize=256)
def _who(uid: str) -> str:
    return user_name(int(uid)) if uid.isdecimal() else f"user {uid}"


def indices(brackets: str) -> frozenset[int] | None:
    """Read "[0-3,7,9-15:2%2]"; None when it is cut short or unreadable, and so may mean any task."""
    found: set[int] = set()
    for part in brackets.strip("[]").partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None:
            return None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        found.update(range(first, last + 1, max(1, step)))
    return frozenset(found)
