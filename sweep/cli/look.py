"""The commands that look at a sweep and change nothing: plan, status, watch, logs. Only parse and print."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sweep.cli.console import err, out, print_json, tell
from sweep.cli.options import DEFAULT_FILE, ClusterFile, Data, File, Json, Names, Output, split
from sweep.cli.where import Where, narrowed
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.plan.networks import with_networks
from sweep.plan.rows import SUBMITTED, PlanRow, make_plan
from sweep.plan.timings import learn
from sweep.status.look import Look, look
from sweep.status.state import ON_ITS_WAY, RunStatus, State, counts

WATCH_S = 2.0
WATCH_SLURM_S = 15.0  # the scheduler is everyone's: a watch asks it no more often


def plan(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    cluster: ClusterFile = None,
    where: Where = None,
    json_: Json = False,
) -> None:
    """Show the grid, its cost, and what is left of it."""
    from sweep.cli.execute import amount
    from sweep.plan.memory import needs

    sweep = with_networks(load_sweep(file, output=output, data=data, cluster=cluster), tell)
    rows = narrowed(sweep, where)(planned(sweep, look(sweep)))
    memory = list(needs(sweep, [row.placed for row in rows if row.status.state is not State.DONE]))
    for need in memory:
        words = need.problem or need.warning
        if words:
            err.print(f"pool '{need.pool}': {'; '.join(words)}", style="yellow", highlight=False, soft_wrap=True)
    if json_:
        print_json(sweep=sweep.name, runs=[_plan_entry(row) for row in rows])
        return
    from sweep.cli.tables import plan_line, plan_tables, rests_on, state_line

    if not out.is_terminal:
        for row in rows:
            print(plan_line(row))
        return
    out.print(plan_tables(rows, memory))
    out.print(f"hours estimated {rests_on(rows)}", highlight=False)
    out.print(f"{len(rows)} runs: {state_line([row.status for row in rows])}", highlight=False)
    left = [row for row in rows if row.status.state in SUBMITTED]
    out.print(f"'sweep submit {file}' would execute {amount(left)}", highlight=False)


def status(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    failed: Annotated[bool, typer.Option("--failed", help="only failed runs, with cause, message and log")] = False,
    all_: Annotated[bool, typer.Option("--all", help="a line for every run, however many")] = False,
    where: Where = None,
    json_: Json = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="exit 3 if a run failed, 4 if one is unfinished")
    ] = False,
) -> None:
    """Show how every run stands, and what failed and why."""
    from sweep.cli.execute import verdict
    from sweep.cli.tables import queue_problems
    from sweep.status.bad_nodes import bad_nodes
    from sweep.status.folder import SweepFolder

    sweep = load_sweep(file, output=output, data=data)
    among = narrowed(sweep, where)
    seen = look(sweep)
    statuses = among(seen.statuses)
    shown = [found for found in statuses if found.state is State.FAILED] if failed else statuses
    for line in [*queue_problems(seen.queue, statuses), *seen.notes]:
        err.print(line, style="yellow", highlight=False, soft_wrap=True)
    bad = bad_nodes(SweepFolder(sweep.folder), seen) if sweep.cluster else []
    if json_:
        print_json(
            sweep=sweep.name,
            counts=counts(statuses),
            bad_nodes=[node._asdict() for node in bad],
            slurm=seen.queue.model_dump(mode="json", include={"squeue", "sacct"}),
            runs=[status_entry(found) for found in shown],
        )
    elif not out.is_terminal:
        from sweep.cli.tables import plain_line

        for found in shown:
            print(plain_line(found))
    else:
        _draw_status(among(planned(sweep, seen)), file, shown, only_failed=failed, every=all_)
        for node in bad:
            out.print(
                f"jobs avoid {node.words}; when it is repaired, run 'sweep retry {file} --forget-nodes'",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
    if exit_code:
        raise typer.Exit(verdict(statuses))


def watch(file: File = DEFAULT_FILE, output: Output = None, data: Data = None, where: Where = None) -> None:
    """Show the status again and again until every run has ended; Ctrl-C stops the watching only."""
    from rich.console import Group
    from rich.live import Live

    from sweep.cli.execute import verdict
    from sweep.cli.tables import legend, matrix, queue_problems, run_table, time_left

    sweep = load_sweep(file, output=output, data=data)
    among = narrowed(sweep, where)
    with Live(console=out, refresh_per_second=2) as live:
        while True:
            seen = look(sweep, max_age_s=WATCH_SLURM_S)
            statuses = among(seen.statuses)
            active = [found for found in statuses if found.state is State.RUNNING]
            rows = among(planned(sweep, seen))
            notes = "\n".join([*time_left(rows), *queue_problems(seen.queue, statuses), *seen.notes])
            live.update(Group(matrix(rows), legend(statuses), notes, run_table(active)))
            if not any(found.state in ON_ITS_WAY for found in statuses):
                break
            time.sleep(WATCH_S)
    raise typer.Exit(verdict(statuses))


def logs(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as the log grows, until the run ends")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="an earlier attempt instead of the newest")] = None,
) -> None:
    """Print the log of a run."""
    from sweep.logs import read_log

    file, run_ids = split(names)
    if len(run_ids) != 1:
        raise InputError("give one run id; 'sweep status' lists them")
    sweep = load_sweep(file, output=output, data=data)
    for text in read_log(sweep, run_ids[0], attempt=attempt, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


def planned(sweep: Sweep, seen: Look) -> list[PlanRow]:
    """The plan as the look found it, with costs learned from what its runs took."""
    return make_plan(sweep, seen.statuses, learn(sweep, seen))


def _draw_status(
    rows: Sequence[PlanRow], file: Path, shown: Sequence[RunStatus], *, only_failed: bool, every: bool
) -> None:
    from sweep.cli.tables import failures, legend, listed, matrix, reasons, run_table, time_left

    if not only_failed:
        out.print(matrix(rows), legend(shown), *time_left(rows), "", sep="\n", highlight=False)
        lines = shown if every else listed(shown)
        if lines:
            out.print(run_table(lines))
    elif not shown:
        out.print("no run failed")
    if not only_failed:
        out.print(reasons(shown), end="", highlight=False, soft_wrap=True)
    out.print(failures(shown, str(file)), end="", highlight=False, soft_wrap=True)


def _plan_entry(row: PlanRow) -> dict[str, Any]:
    return {
        **row.run.model_dump(),
        "train_samples": row.placed.train_samples,
        "pool": row.placed.pool,
        "state": row.status.state.value,
        "estimate_s": round(row.estimate_s, 1),
        "basis": row.basis,
    }


def status_entry(found: RunStatus) -> dict[str, Any]:
    """A run as `sweep status --json` has it: its cell of the grid, then how it stands."""
    fields = found._asdict()
    return {**fields.pop("run").model_dump(), **fields}
