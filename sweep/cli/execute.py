"""Carry out a submit or a retry: say what will be done, ask, start, wait. On Slurm where the sweep names a cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import typer

from slurm.executor import Executor
from slurm.fit import delays
from slurm.limits import ClusterLimits
from slurm.submission import on_login_node
from sweep.cli.console import confirm, err
from sweep.config.schema import Cluster, Sweep, sharing
from sweep.errors import InputError, MachineError
from sweep.plan.rows import PlanRow, make_plan
from sweep.plan.timings import learn
from sweep.status.look import Look, look, unconfirmed
from sweep.status.state import RunStatus, State
from sweep.submit.batches import Batch, local_batches, slurm_batches
from sweep.submit.cluster import read_cluster_limits, target
from sweep.submit.remedies import Change
from sweep.submit.start import Overtaken, preview, scripts, start
from sweep.words import hours

FAILED, UNFINISHED = 3, 4
LOOKS = 5  # how often a submission that others overtake is chosen anew


class Chosen(NamedTuple):
    """The runs to execute, and what each is given beyond its pool's resources."""

    rows: Sequence[PlanRow]
    changes: Mapping[str, Change] = {}


class Call(NamedTuple):
    """How the user wants it done. wait: None for the executor's own habit."""

    file: Path
    workers: int | None
    wait: bool | None
    yes: bool
    dry_run: bool
    show_script: bool = False


Choose = Callable[[Sequence[PlanRow], Look], Chosen]


def execute(sweep: Sweep, choose: Choose, call: Call, *, local: bool) -> NoReturn:
    """Choose runs by a fresh look, ask once, start them, wait if wanted; exit with what came of it.

    When someone else submits between the look and the intent, it is looked again, so that no run is submitted twice.
    """
    cluster = target(sweep, local=local)
    if cluster and call.workers:
        raise InputError("'--workers' counts for this machine; on Slurm 'cluster.runs_per_gpu' and 'max_parallel' do")
    limits = read_cluster_limits(sweep, cluster) if cluster else None
    for number in range(LOOKS):
        seen = look(sweep, max_age_s=0)
        for line in unconfirmed(seen):
            err.print(line, highlight=False, soft_wrap=True)
        chosen = choose(make_plan(sweep, seen.statuses, learn(sweep, seen)), seen)
        asked = call if number == 0 else call._replace(yes=True)
        try:
            if cluster and limits:
                plan = _on_slurm(sweep, cluster, limits, chosen, call.file)
            else:
                plan = _here(sweep, chosen, call)
            _submit(sweep, plan, chosen.rows, seen, asked)
        except Overtaken:
            err.print("someone else submitted at this moment; looking again", highlight=False)
    raise MachineError(f"{sweep.folder}: others submitted {LOOKS} times in a row; try again")


def amount(rows: Sequence[PlanRow]) -> str:
    """Say how many runs, and for how long they would keep a device busy."""
    return f"{len(rows)} runs, about {hours(sum(row.remaining_s * row.gpus for row in rows))} of one device's time"


def verdict(statuses: Sequence[RunStatus]) -> int:
    """Give the exit code that says whether runs failed, or are not finished."""
    states = {found.state for found in statuses}
    if State.FAILED in states:
        return FAILED
    return 0 if states == {State.DONE} else UNFINISHED


class _Plan(NamedTuple):
    """What is about to be done, and the words for it. waits: unless the user says otherwise."""

    executor: Executor
    batches: Sequence[Batch]
    action: str
    details: Sequence[str]
    waits: bool
    left: str
    unfinished: str


def _submit(sweep: Sweep, plan: _Plan, rows: Sequence[PlanRow], seen: Look, call: Call) -> NoReturn:
    from sweep.cli.progress import SubmitProgress
    from sweep.submit.wait import until_ended

    if call.show_script and call.dry_run:
        print("\n".join(preview(sweep, rows, seen, plan.executor, plan.batches)), end="")
    confirm(plan.action, plan.details, yes=call.yes, dry_run=call.dry_run)
    started = start(sweep, rows, seen, plan.executor, plan.batches)
    if call.show_script:
        print("\n".join(scripts(sweep, started.submission, plan.executor)), end="")
    accepted = [array for array in started.submission.arrays if array.job]
    if accepted:
        count = sum(len(array.tasks) for array in accepted)
        ids = ", ".join(array.job or "" for array in accepted)
        err.print(f"submitted {count} jobs in {len(accepted)} arrays: {ids}", highlight=False)
    if started.problems:
        follow = "; 'sweep status' says what became of it, the next 'sweep submit' sends what Slurm has not"
        raise MachineError("\n       ".join(started.problems) + (follow if started.unclear else ""))
    if not (plan.waits if call.wait is None else call.wait):
        err.print(plan.left, highlight=False)
        raise typer.Exit
    with SubmitProgress(err, rows) as progress:
        finished = until_ended(sweep, started.submission, plan.executor, progress.show, progress.say)
    _conclude(sweep, call.file, None if finished else plan.unfinished)


def _on_slurm(sweep: Sweep, cluster: Cluster, limits: ClusterLimits, chosen: Chosen, file: Path) -> _Plan:
    from slurm.scheduler import Slurm
    from sweep.cli.tables import array_line

    batches = slurm_batches(sweep, cluster, chosen.rows, limits, chosen.changes)
    details = [array_line(batch.array) for batch in batches if batch.array]
    left_out = len(chosen.rows) - sum(len(task) for batch in batches for task in batch.tasks)
    if left_out:
        most = limits.max_submit or limits.max_jobs
        details.append(f"{left_out} runs are left for later: you may have {most} jobs at a time")
    for name in dict.fromkeys(batch.pool for batch in batches):
        waits = delays(cluster.pools[name], limits, **sharing(sweep, cluster))
        details += [f"{name}: {words}" for words in waits]
    jobs = sum(len(batch.tasks) for batch in batches)
    return _Plan(
        Slurm(max_parallel=cluster.section.max_parallel),
        batches,
        f"submit {amount(chosen.rows)}, in {jobs} jobs",
        details,
        waits=False,
        left=f"you may log out; 'sweep status {file}' shows how far they are",
        unfinished=f"the jobs go on; see them with 'sweep watch {file}'",
    )


def _here(sweep: Sweep, chosen: Chosen, call: Call) -> _Plan:
    from slurm.local import Local
    from slurm.machine import cores, default_workers

    configured = sweep.execution.workers
    gpus = sweep.execution.gpus_per_run
    workers = call.workers or (configured if isinstance(configured, int) else max(1, default_workers() // gpus))
    count = min(workers, len(chosen.rows))
    return _Plan(
        Local(count, gpus),
        local_batches(sweep, chosen.rows, threads=max(1, cores() // workers)),
        f"execute {amount(chosen.rows)} in {count} local workers",
        ["on this machine, for the sweep names no cluster"] if on_login_node() and not sweep.cluster else [],
        waits=True,
        left=f"started; 'sweep watch {call.file}' shows the progress",
        unfinished=f"continue with 'sweep submit {call.file}'",
    )


def _conclude(sweep: Sweep, file: Path, unfinished: str | None) -> NoReturn:
    """Say what a waited-for submission came to."""
    from sweep.cli.tables import state_line

    statuses = look(sweep).statuses
    err.print(state_line(statuses), highlight=False)
    if any(found.state is State.FAILED for found in statuses):
        err.print(f"see what failed with 'sweep status {file} --failed'", highlight=False)
    if unfinished:
        err.print(unfinished, highlight=False)
    raise typer.Exit(verdict(statuses))
