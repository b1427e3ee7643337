"""The command line: parses, asks, prints. What a command means is decided in the modules it calls.

Results go to stdout; progress, questions and errors to stderr. Exit codes: 0 fine, 1 the environment failed, 2 the
input is wrong, 3 some runs failed, 4 not finished yet (3 and 4 of a waited-for submit and of status --exit-code).
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sweep.cli.console import confirm, err, out, print_json
from sweep.cli.data import data_app
from sweep.cli.options import DEFAULT_FILE, Data, DryRun, File, Json, Output, Yes
from sweep.cli.results import add_result_commands
from sweep.cli.upkeep import add_upkeep_commands
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.doctor.check import Verdict
from sweep.errors import InputError, MachineError, SweepError
from sweep.plan.rows import SUBMITTED, PlanRow, make_plan
from sweep.plan.timings import learn
from sweep.status.look import Look, look
from sweep.status.state import RunStatus, State, counts
from trainer.data.prepared import DataError

if TYPE_CHECKING:
    from sweep.submit.remedies import Remedy

DOCTOR_STYLES = {
    Verdict.OK: "green",
    Verdict.WARNING: "yellow",
    Verdict.PROBLEM: "bold red",
    Verdict.SKIPPED: "dim",
}
WATCH_S = 2.0
WATCH_SLURM_S = 15.0  # the scheduler is everyone's: a watch asks it no more often

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")

Names = Annotated[list[str] | None, typer.Argument(help="the sweep's YAML file, if not the default; then run ids")]
Workers = Annotated[int | None, typer.Option(min=1, help="worker processes on this machine")]
Wait = Annotated[
    bool | None, typer.Option("--wait/--no-wait", help="wait until the runs have ended (by itself: not on Slurm)")
]
Local = Annotated[bool, typer.Option("--local", help="execute on this machine, also where Slurm is")]
Cluster = Annotated[str | None, typer.Option(help="another cluster file than the sweep's: its name or path")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Run a grid of trainings, on Slurm or here: plan, submit, status, retry, report."""


@app.command()
def plan(
    file: File = DEFAULT_FILE, output: Output = None, data: Data = None, cluster: Cluster = None, json_: Json = False
) -> None:
    """Show the grid, its cost, and what is left of it."""
    from sweep.cli.submit import amount

    sweep = load_sweep(file, output=output, data=data, cluster=cluster)
    rows = _plan(sweep, look(sweep))
    if json_:
        print_json(sweep=sweep.name, runs=[_plan_entry(row) for row in rows])
        return
    from sweep.cli.tables import plan_line, plan_tables, rests_on, state_line

    if not out.is_terminal:
        for row in rows:
            print(plan_line(row))
        return
    out.print(plan_tables(rows))
    out.print(f"hours estimated {rests_on(rows)}", highlight=False)
    out.print(f"{len(rows)} runs: {state_line([row.status for row in rows])}", highlight=False)
    left = [row for row in rows if row.status.state in SUBMITTED]
    out.print(f"'sweep submit {file}' would execute {amount(left)}", highlight=False)


@app.command()
def submit(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    cluster: Cluster = None,
    local: Local = False,
    workers: Workers = None,
    wait: Wait = None,
    stale: Annotated[bool, typer.Option("--stale", help="train stale runs anew, setting their results aside")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Execute every run that is missing. Done and failed runs are left alone."""
    from sweep.cli.submit import Call, Chosen, execute
    from sweep.submit.cluster import target

    sweep = load_sweep(file, output=output, data=data, cluster=cluster)
    waits = target(sweep, local=local) is None if wait is None else wait
    wanted = (*SUBMITTED, State.STALE) if stale else SUBMITTED

    def choose(rows: Sequence[PlanRow], seen: Look) -> Chosen:
        chosen = [row for row in rows if row.status.state in wanted]
        if not chosen:
            _nothing_to_submit(file, rows, waits=waits)
        _require_data(sweep)
        return Chosen(chosen)

    execute(sweep, choose, Call(file, workers, wait, yes, dry_run), local=local)


@app.command()
def retry(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    cluster: Cluster = None,
    local: Local = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="also runs that raised an exception, and would again unless it is mended")
    ] = False,
    workers: Workers = None,
    wait: Wait = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Try failed and interrupted runs again, or the named ones, each with what its cause calls for."""
    from sweep.cli.submit import Call, Chosen, execute
    from sweep.submit.cluster import ground, read_cluster_limits, target
    from sweep.submit.remedies import choose as choose_remedies

    file, run_ids = _split(names)
    if failed and run_ids:
        raise InputError("give '--failed' or run ids, not both")
    sweep = load_sweep(file, output=output, data=data, cluster=cluster)
    goal = target(sweep, local=local)

    def choose(rows: Sequence[PlanRow], seen: Look) -> Chosen:
        on = ground(sweep, goal, read_cluster_limits(sweep, goal), seen) if goal else None
        remedies = choose_remedies(rows, run_ids, every=failed, ground=on)
        _say_remedies(remedies)
        chosen = [remedy for remedy in remedies if remedy.again]
        if not chosen:
            err.print("nothing to retry: no run failed" if not remedies else "nothing to retry", highlight=False)
            raise typer.Exit
        _require_data(sweep)
        return Chosen([remedy.row for remedy in chosen], {remedy.row.id: remedy.change for remedy in chosen})

    execute(sweep, choose, Call(file, workers, wait, yes, dry_run), local=local)


@app.command()
def status(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    failed: Annotated[bool, typer.Option("--failed", help="only failed runs, with cause, message and log")] = False,
    all_: Annotated[bool, typer.Option("--all", help="a line for every run, however many")] = False,
    json_: Json = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="exit 3 if a run failed, 4 if one is unfinished")
    ] = False,
) -> None:
    """Show how every run stands, and what failed and why."""
    from sweep.cli.submit import verdict
    from sweep.cli.tables import queue_problems

    sweep = load_sweep(file, output=output, data=data)
    seen = look(sweep)
    statuses = seen.statuses
    shown = [found for found in statuses if found.state is State.FAILED] if failed else statuses
    for line in queue_problems(seen.queue, statuses):
        err.print(line, style="yellow", highlight=False, soft_wrap=True)
    if json_:
        print_json(
            sweep=sweep.name,
            counts=counts(statuses),
            slurm=seen.queue.model_dump(mode="json", include={"squeue", "sacct"}),
            runs=[_status_entry(found) for found in shown],
        )
    elif not out.is_terminal:
        from sweep.cli.tables import plain_line

        for found in shown:
            print(plain_line(found))
    else:
        _draw_status(_plan(sweep, seen), file, shown, only_failed=failed, every=all_)
    if exit_code:
        raise typer.Exit(verdict(statuses))


@app.command()
def watch(file: File = DEFAULT_FILE, output: Output = None, data: Data = None) -> None:
    """Show the status again and again until every run has ended; Ctrl-C stops the watching only."""
    from rich.console import Group
    from rich.live import Live

    from sweep.cli.submit import verdict
    from sweep.cli.tables import legend, matrix, queue_problems, run_table, time_left

    sweep = load_sweep(file, output=output, data=data)
    with Live(console=out, refresh_per_second=2) as live:
        while True:
            seen = look(sweep, max_age_s=WATCH_SLURM_S)
            statuses = seen.statuses
            active = [found for found in statuses if found.state is State.RUNNING]
            rows = _plan(sweep, seen)
            notes = "\n".join([*time_left(rows), *queue_problems(seen.queue, statuses)])
            live.update(Group(matrix(rows), legend(statuses), notes, run_table(active)))
            if not any(found.state in (State.RUNNING, State.QUEUED) for found in statuses):
                break
            time.sleep(WATCH_S)
    raise typer.Exit(verdict(statuses))


@app.command()
def logs(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as the log grows, until the run ends")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="an earlier attempt instead of the newest")] = None,
) -> None:
    """Print the log of a run."""
    from sweep.logs import read_log

    file, run_ids = _split(names)
    if len(run_ids) != 1:
        raise InputError("give one run id; 'sweep status' lists them")
    sweep = load_sweep(file, output=output, data=data)
    for text in read_log(sweep, run_ids[0], attempt=attempt, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def cancel(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    state: Annotated[State | None, typer.Option(help="only runs in this state")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Stop runs: the named ones, or all that are queued or running. Their checkpoints stay."""
    from sweep.submit.cancel import cancel_unwanted_jobs, cancellable, request

    file, run_ids = _split(names)
    sweep = load_sweep(file, output=output, data=data)
    seen = look(sweep, max_age_s=0)
    chosen = cancellable(_plan(sweep, seen), run_ids, state)
    if not chosen:
        err.print("nothing to cancel: no such run is queued or running", highlight=False)
        raise typer.Exit
    confirm(f"cancel {len(chosen)} runs ({_counted([row.status for row in chosen])})", yes=yes, dry_run=dry_run)
    request(sweep, [row.id for row in chosen])
    jobs = cancel_unwanted_jobs(seen, [row.id for row in chosen])
    with_jobs = f" and {jobs} jobs" if jobs else ""
    err.print(f"cancelled {len(chosen)} runs{with_jobs}; those in work stop within seconds", highlight=False)


@app.command()
def doctor(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    cluster: Cluster = None,
    probe: Annotated[bool, typer.Option(help="also look from a compute node of each pool")] = True,
    json_: Json = False,
) -> None:
    """Check what a sweep needs before it is submitted: Slurm, the pools, folders, data, torch, disk space."""
    from sweep.doctor.examine import examine

    sweep = load_sweep(file, output=output, data=data, cluster=cluster)
    checks = []
    for check in examine(sweep, sweep.cluster.pools if sweep.cluster else {}, probe=probe):
        checks.append(check)
        if not json_:
            out.print(check.line(), style=DOCTOR_STYLES[check.state], highlight=False, soft_wrap=True, markup=False)
    if json_:
        print_json(sweep=sweep.name, checks=[check._asdict() for check in checks])
    raise typer.Exit(MachineError.exit_code if any(check.state is Verdict.PROBLEM for check in checks) else 0)


add_upkeep_commands(app)
add_result_commands(app)


def main() -> NoReturn:
    """Run the command line; every error the user can have becomes one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (SweepError, DataError, OSError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"sweep: {error}", file=sys.stderr)
        if isinstance(error, DataError):
            sys.exit(InputError.exit_code)
        sys.exit(error.exit_code if isinstance(error, SweepError) else MachineError.exit_code)
    sys.exit(0)


def _plan(sweep: Sweep, seen: Look) -> list[PlanRow]:
    return make_plan(sweep, seen.statuses, learn(sweep, seen))


def _say_remedies(remedies: Sequence["Remedy"]) -> None:
    """Print each remedy once, however many runs share it."""
    alike: dict[str, list[str]] = {}
    for remedy in remedies:
        alike.setdefault(remedy.words, []).append(remedy.row.id)
    for words, ids in alike.items():
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        err.print(f"{ids[0]}{more}: {words}", highlight=False, soft_wrap=True)


def _nothing_to_submit(file: Path, rows: Sequence[PlanRow], *, waits: bool) -> NoReturn:
    from sweep.cli.submit import verdict

    statuses = [row.status for row in rows]
    err.print(f"nothing to submit: {_counted(statuses)}", highlight=False)
    present = {found.state for found in statuses}
    if State.FAILED in present:
        err.print(f"failed runs wait for 'sweep retry {file}'", highlight=False)
    if State.STALE in present:
        err.print(f"stale runs keep their results until 'sweep submit {file} --stale'", highlight=False)
    if State.RUNNING in present or State.QUEUED in present:
        err.print(f"follow the others with 'sweep watch {file}'", highlight=False)
    raise typer.Exit(verdict(statuses) if waits else 0)


def _require_data(sweep: Sweep) -> None:
    needed = dict.fromkeys(placed.spec.run.dataset for placed in sweep.runs)
    absent = [name for name in needed if name not in sweep.fingerprints]
    if absent:
        raise InputError(
            f"{sweep.data / absent[0]}: {absent[0]} is not prepared; run "
            f"'sweep data prepare {absent[0]} --source ARCHIVE --data {sweep.data}'"
        )


def _draw_status(
    rows: Sequence[PlanRow], file: Path, shown: Sequence[RunStatus], *, only_failed: bool, every: bool
) -> None:
    from sweep.cli.tables import failures, legend, listed, matrix, run_table, time_left

    if not only_failed:
        out.print(matrix(rows), legend(shown), *time_left(rows), "", sep="\n", highlight=False)
        lines = shown if every else listed(shown)
        if lines:
            out.print(run_table(lines))
    elif not shown:
        out.print("no run failed")
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


def _status_entry(found: RunStatus) -> dict[str, Any]:
    fields = found._asdict()
    return {**fields.pop("run").model_dump(), **fields}


def _counted(statuses: Sequence[RunStatus]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts(statuses).items())


def _split(names: list[str] | None) -> tuple[Path, list[str]]:
    """Tell the sweep file from run ids: it is the first name, and ends in .yaml or .yml."""
    names = names or []
    if names and names[0].endswith((".yaml", ".yml")):
        return Path(names[0]), names[1:]
    return DEFAULT_FILE, names
