"""Draw plans, states and progress: tables on a terminal, plain lines in a pipe. Decides nothing."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.box import SIMPLE
from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

from slurm.jobs import ArrayRecord, Snapshot
from sweep.plan.memory import Need
from sweep.plan.rows import SUBMITTED, PlanRow
from sweep.status.state import ON_ITS_WAY, RunStatus, State, counts
from sweep.words import hours, last_line
from trainer.data.catalog import DATASETS
from trainer.models.catalog import facts
from trainer.records.base import now

LOOKS = {
    State.DONE: ("■", "green"),
    State.RUNNING: ("▶", "bold cyan"),
    State.STALLED: ("!", "bold red"),
    State.STARTING: ("▷", "cyan"),
    State.QUEUED: ("…", "cyan"),
    State.INTERRUPTED: ("‖", "yellow"),
    State.FAILED: ("✗", "bold red"),
    State.CANCELLED: ("–", "magenta"),
    State.STALE: ("≠", "bold yellow"),
    State.PLANNED: ("·", "dim"),
}
LISTED = 40  # above this many runs only those that someone may want to act on get a line of their own
OF_INTEREST = (State.RUNNING, State.STALLED, State.INTERRUPTED, State.FAILED, State.STALE)
EXPLAINED = (State.STALLED, State.INTERRUPTED, State.STARTING, State.QUEUED, State.CANCELLED)
SHOWN = 3  # names of a group that are spelt out


def title(row: PlanRow) -> str:
    """Name a block of the grid, as the chapter does."""
    name = f"{facts(row.run.architecture).title} / {DATASETS[row.run.dataset].title}"
    return f"{name} / {row.placed.variant}" if row.placed.variant else name


def blocks(rows: Sequence[PlanRow]) -> dict[str, list[PlanRow]]:
    """Group the rows by architecture, dataset and variant, in the plan's order."""
    grouped: dict[str, list[PlanRow]] = {}
    for row in rows:
        grouped.setdefault(title(row), []).append(row)
    return grouped


def plan_tables(rows: Sequence[PlanRow], memory: Sequence[Need] = ()) -> Group:
    """Draw the grid with its cost and how it stands, the pools, and the images each ratio trains on.

    memory: what the pools' GPUs must give, for a column of its own; a run's, or that of those that share one.
    """
    present = [state for state in State if any(row.status.state is state for row in rows)]
    grid = Table(box=SIMPLE)
    for name in ("architecture / dataset", "runs", "training images", "hours", "left"):
        grid.add_column(name, justify="left" if "/" in name else "right")
    for state in present:
        grid.add_column("new" if state is State.PLANNED else state.value, justify="right", style=LOOKS[state][1])
    for name, block in blocks(rows).items():
        images = [row.placed.train_samples for row in block]
        standing = (str(sum(row.status.state is state for row in block) or "") for state in present)
        grid.add_row(name, str(len(block)), f"{min(images):,}–{max(images):,}", *_hours(block), *standing)
    pools = Table(box=SIMPLE)
    for name in ("pool", "runs", "hours", "left", *(["GPU memory"] if memory else [])):
        pools.add_column(name, justify="left" if name == "pool" else "right")
    needed = {need.pool: f"{sum(need.gibs):.1f} of {need.has}" for need in memory}
    for pool in dict.fromkeys(row.placed.pool for row in rows):
        placed = [row for row in rows if row.placed.pool == pool]
        pools.add_row(pool, str(len(placed)), *_hours(placed), *([needed.get(pool, "")] if memory else []))
    return Group(grid, Columns([_samples_table(rows), pools], padding=(0, 4)))


def plan_line(row: PlanRow) -> str:
    """A planned run as tab-separated fields: id, state, pool, images, estimated seconds, their basis."""
    fields = (row.id, row.status.state.value, row.placed.pool, str(row.placed.train_samples), f"{row.estimate_s:.0f}")
    return "\t".join((*fields, row.basis))


def rests_on(rows: Sequence[PlanRow]) -> str:
    """What the estimates of some runs rest on, the most frequent first."""
    counted = Counter(row.basis for row in rows).most_common()
    if len(counted) == 1:
        return f"by {counted[0][0]}"
    named = ", ".join(f"{count} by {basis}" for basis, count in counted[:SHOWN])
    others = sum(count for _, count in counted[SHOWN:])
    return f"{named}, {others} otherwise" if others else named


def time_left(rows: Sequence[PlanRow]) -> list[str]:
    """A line on how long the rest of a sweep will take; no line where nothing is left."""
    left = [row for row in rows if row.status.state in (*SUBMITTED, *ON_ITS_WAY)]
    if not left:
        return []
    seconds = sum(row.remaining_s for row in left)
    line = f"{len(left)} runs left, about {hours(seconds)} of one device's time"
    working = sum(row.status.state is State.RUNNING for row in left)
    if working:
        # No run ends before its own time, however many work beside it.
        ends_s = max(seconds / working, *(row.remaining_s for row in left))
        line += f": about {hours(ends_s)} with {working} in work at a time"
    return [f"{line}; estimated {rests_on(left)}"]


def state_line(statuses: Sequence[RunStatus]) -> str:
    """How many runs are in each state, in a line."""
    return " · ".join(f"{count} {state}" for state, count in counts(statuses).items())


def matrix(rows: Sequence[PlanRow]) -> Table:
    """Draw one coloured sign a run: a row a block, a column a ratio, within it the seeds."""
    ratios = sorted({row.run.ratio for row in rows})
    seeds = sorted({row.run.seed for row in rows})
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(f"seeds {' '.join(map(str, seeds))} at ratio")
    for ratio in ratios:
        table.add_column(f"{ratio:g}".lstrip("0"))
    for name, block in blocks(rows).items():
        cells = {(row.run.ratio, row.run.seed): row.status.state for row in block}
        signs = []
        for ratio in ratios:
            sign = Text()
            for seed in seeds:
                state = cells.get((ratio, seed))
                sign.append(*(LOOKS[state] if state else (" ", "")))
            signs.append(sign)
        table.add_row(name, *signs)
    return table


def legend(statuses: Sequence[RunStatus]) -> Text:
    """Explain the signs that occur, with their counts."""
    line = Text()
    for state, count in counts(statuses).items():
        sign, style = LOOKS[State(state)]
        line.append(f"{sign} {count} {state}   ", style)
    return line


def run_table(statuses: Sequence[RunStatus]) -> Table:
    """Draw a line a run: state, epoch, best validation accuracy, age of the last sign of life."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("epoch", "val acc", "seen"):
        table.add_column(name, no_wrap=True, justify="right")
    for status in statuses:
        sign, style = LOOKS[status.state]
        table.add_row(
            status.id,
            Text(f"{sign} {status.state.value}" + (f": {status.cause.value}" if status.cause else ""), style),
            f"{status.epoch}/{status.epochs}",
            _accuracy(status),
            _age(status),
        )
    return table


def listed(statuses: Sequence[RunStatus]) -> list[RunStatus]:
    """Choose the runs that get a line of their own."""
    if len(statuses) <= LISTED:
        return list(statuses)
    return [status for status in statuses if status.state in OF_INTEREST]


def reasons(statuses: Sequence[RunStatus]) -> Text:
    """Why runs wait, are stuck or were cut off: a line a reason, those of stuck runs first. Numbers alike are one."""
    alike: dict[tuple[State, str], list[RunStatus]] = {}
    for status in statuses:
        if status.state in EXPLAINED and status.message:
            words = re.sub(r"\d+", "#", last_line(status.message).replace(status.id, "RUN"))
            alike.setdefault((status.state, words), []).append(status)
    text = Text()
    for (state, _), group in sorted(alike.items(), key=lambda item: (EXPLAINED.index(item[0][0]), -len(item[1]))):
        sign, style = LOOKS[state]
        text.append(f"{sign} {group[0].id if len(group) == 1 else f'{len(group)} {state.value}'}", style)
        text.append(f"  {last_line(group[0].message)}\n")
    return text


def failures(statuses: Sequence[RunStatus], file: str) -> Text:
    """Each failure: why, where its log is, what tries it again. Equal failures are one entry with a count."""
    alike: dict[tuple[str, str, str | None], list[RunStatus]] = {}
    for status in statuses:
        if status.state is State.FAILED:
            # Job numbers and spool folders differ between failures that are the same.
            message = re.sub(r"\d+", "#", last_line(status.message))
            key = (status.cause.value if status.cause else "unknown", message, status.frame)
            alike.setdefault(key, []).append(status)
    text = Text()
    for (cause, _, frame), group in sorted(alike.items(), key=lambda item: -len(item[1])):
        first = group[0]
        if len(group) == 1:
            text.append(f"✗ {first.id}", "bold red")
            begun = f"attempt {first.attempt}, epoch {first.epoch}" if first.attempt else "before it began"
            text.append(f"  {cause} on {first.node or 'no node'}, {begun}")
            text.append(f", job {first.job}\n" if first.job else "\n")
        else:
            text.append(f"✗ {len(group)} runs", "bold red")
            text.append(f"  {cause} on {_several([status.node or 'no node' for status in group])}\n")
            text.append(f"    runs   {_several([status.id for status in group])}\n")
        text.append(f"    {last_line(first.message)}{f'  ({frame})' if frame else ''}\n")
        text.append(f"    log    {first.log or 'none'}\n")
        text.append(f"    retry  sweep retry {file} {' '.join(status.id for status in group[:SHOWN])}")
        text.append(" …\n" if len(group) > SHOWN else "\n")
    return text


def _several(words: Sequence[str]) -> str:
    """A few of the different words, and a count of the others."""
    different = list(dict.fromkeys(words))
    more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return ", ".join(different[:SHOWN]) + more


def plain_line(status: RunStatus) -> str:
    """A run as tab-separated fields: id, state, epoch, accuracy, cause, message, log."""
    cause = status.cause.value if status.cause else "-"
    fields = (status.id, status.state.value, f"{status.epoch}/{status.epochs}", _accuracy(status) or "-", cause)
    return "\t".join((*fields, last_line(status.message) or "-", status.log or "-"))


def array_line(array: ArrayRecord) -> str:
    """What an array asks for, in a line."""
    wanted = array.resources
    runs = sum(map(len, array.tasks))
    partition = f"partition {wanted.partition}" if wanted.partition else "the default partition"
    cluster = f"cluster {wanted.clusters}" if wanted.clusters else None
    inside = f"in {wanted.container.image}" if wanted.container else None
    where = ", ".join(filter(None, (cluster, partition, wanted.gres, wanted.constraint, inside)))
    memory = "" if wanted.memory_gb is None else f"{wanted.memory_gb:g} GB, "
    given = "".join(f", --{name}={value}" for name, value in wanted.sbatch.items()).replace("=True", "")
    time = "the site's time limit" if wanted.time_limit_min is None else f"{wanted.time_limit_min} min"
    needs = f"{wanted.cpus} CPUs, {memory}{time}{given}"
    without = f", not on {', '.join(wanted.exclude)}" if wanted.exclude else ""
    return f"{array.pool}: {runs} runs in {len(array.tasks)} jobs; {where}; {needs}{without}"


def queue_problems(queue: Snapshot, statuses: Sequence[RunStatus]) -> list[str]:
    """Which of Slurm's answers are missing, and how old what is shown instead is."""
    lines = []
    for name, answer in (("squeue", queue.squeue), ("sacct", queue.sacct)):
        if answer.problem is None:
            continue
        since = f"its answer of {_clock(answer.answered)} stands" if answer.answered else "it has never answered"
        lines.append(f"{name} does not answer: {answer.problem}; {since}")
    stale = [status.stale_since for status in statuses if status.problem]
    known = [moment for moment in stale if moment]
    if stale:
        oldest = f" as of {_clock(min(known))}" if known else ""
        lines.append(f"{len(stale)} runs are shown as last known{oldest}")
    return lines


def _hours(rows: Sequence[PlanRow]) -> tuple[str, str]:
    """The estimated device-hours of some runs, and how many of them are left."""
    return (
        f"{sum(row.estimate_s * row.gpus for row in rows) / 3600:,.2f}",
        f"{sum(row.remaining_s * row.gpus for row in rows) / 3600:,.2f}",
    )


def _samples_table(rows: Sequence[PlanRow]) -> Table:
    samples = {(row.run.dataset, row.run.ratio): row.placed.train_samples for row in rows}
    datasets = list(dict.fromkeys(row.run.dataset for row in rows))
    table = Table(box=SIMPLE)
    table.add_column("ratio", justify="right")
    for dataset in datasets:
        table.add_column(f"{DATASETS[dataset].title} images", justify="right")
    for ratio in sorted({row.run.ratio for row in rows}):
        table.add_row(str(ratio), *(f"{samples[dataset, ratio]:,}" for dataset in datasets))
    return table


def _accuracy(status: RunStatus) -> str:
    return "" if status.best_val_accuracy is None else f"{status.best_val_accuracy:.4f}"


def _clock(moment: datetime) -> str:
    """A moment as the reader's clock shows it, with its age."""
    age = max(now() - moment, timedelta())
    return f"{moment.astimezone():%H:%M:%S} ({hours(age.total_seconds())} ago)"


def _age(status: RunStatus) -> str:
    if status.updated is None:
        return ""
    age = max(now() - status.updated, timedelta())
    return hours(age.total_seconds())
