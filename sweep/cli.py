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
from typing import Annotated, Any, NoReturn

import typer

from sweep.config import Sweep, load_sweep
from sweep.console import Json, confirm, err, out, print_json
from sweep.data_cli import data_app
from sweep.errors import InputError, MachineError, SweepError
from sweep.plan import SUBMITTED, PlanRow, hours, make_plan, planned_run
from sweep.status import RunStatus, State, counts
from sweep.survey import survey
from trainer.data.prepared import DataError

DEFAULT_FILE = Path("configs/thesis.yaml")
FAILED, UNFINISHED = 3, 4
WATCH_S = 2.0

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")

File = Annotated[Path, typer.Argument(help="the sweep's YAML file")]
Names = Annotated[list[str] | None, typer.Argument(help="the sweep's YAML file, if not the default; then run ids")]
Output = Annotated[Path | None, typer.Option(help="folder for results instead of the file's")]
Data = Annotated[Path | None, typer.Option(help="folder of prepared datasets instead of the file's")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]
Workers = Annotated[int | None, typer.Option(min=1, help="worker processes on this machine")]
Wait = Annotated[bool, typer.Option(help="wait until the runs have ended")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Run a grid of trainings, on Slurm or here: plan, submit, status, retry, tables."""


@app.command()
def plan(file: File = DEFAULT_FILE, output: Output = None, data: Data = None, json_: Json = False) -> None:
    """Show the grid, its cost, and what is left of it."""
    sweep = load_sweep(file, output=output, data=data)
    rows = _plan(sweep)
    if json_:
        print_json(sweep=sweep.name, runs=[_plan_entry(row) for row in rows])
        return
    from sweep.display import plan_line, plan_tables, state_line

    if not out.is_terminal:
        for row in rows:
            print(plan_line(row))
        return
    out.print(plan_tables(rows))
    out.print(f"{len(rows)} runs: {state_line([row.status for row in rows])}", highlight=False)
    left = [row for row in rows if row.status.state in SUBMITTED]
    out.print(f"'sweep submit {file}' would execute {_amount(left)}", highlight=False)


@app.command()
def submit(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    workers: Workers = None,
    wait: Wait = True,
    stale: Annotated[bool, typer.Option("--stale", help="train stale runs anew, setting their results aside")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Execute every run that is missing. Done and failed runs are left alone."""
    sweep = load_sweep(file, output=output, data=data)
    rows = _plan(sweep)
    wanted = (*SUBMITTED, State.STALE) if stale else SUBMITTED
    chosen = [row for row in rows if row.status.state in wanted]
    if not chosen:
        _nothing_to_submit(file, rows)
    _require_data(sweep)
    _execute(sweep, file, chosen, workers=workers, wait=wait, yes=yes, dry_run=dry_run)


@app.command()
def retry(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    failed: Annotated[bool, typer.Option("--failed", help="retry every failed run (so without run ids)")] = False,
    workers: Workers = None,
    wait: Wait = True,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Try runs again from their checkpoints: the named ones, or every failed one."""
    file, run_ids = _split(names)
    if failed and run_ids:
        raise InputError("give '--failed' or run ids, not both")
    sweep = load_sweep(file, output=output, data=data)
    from sweep.retry import choose

    remedies = choose(_plan(sweep), run_ids)
    for remedy in remedies:
        err.print(f"{remedy.row.id} {remedy.words}", highlight=False, soft_wrap=True)
    chosen = [remedy.row for remedy in remedies if remedy.again]
    if not chosen:
        err.print("nothing to retry: no run failed" if not remedies else "nothing to retry", highlight=False)
        raise typer.Exit
    _require_data(sweep)
    _execute(sweep, file, chosen, workers=workers, wait=wait, yes=yes, dry_run=dry_run)


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
    sweep = load_sweep(file, output=output, data=data)
    statuses = survey(sweep)
    shown = [found for found in statuses if found.state is State.FAILED] if failed else statuses
    if json_:
        print_json(sweep=sweep.name, counts=counts(statuses), runs=[found._asdict() for found in shown])
    elif not out.is_terminal:
        from sweep.display import plain_line

        for found in shown:
            print(plain_line(found))
    else:
        _draw_status(sweep, file, shown, only_failed=failed, every=all_)
    if exit_code:
        raise typer.Exit(_verdict(statuses))


@app.command()
def watch(file: File = DEFAULT_FILE, output: Output = None, data: Data = None) -> None:
    """Show the status again and again until every run has ended; Ctrl-C stops the watching only."""
    from rich.console import Group
    from rich.live import Live

    from sweep.display import legend, matrix, run_table

    sweep = load_sweep(file, output=output, data=data)
    with Live(console=out, refresh_per_second=2) as live:
        while True:
            statuses = survey(sweep)
            active = [found for found in statuses if found.state is State.RUNNING]
            live.update(Group(matrix(make_plan(sweep, statuses)), legend(statuses), run_table(active)))
            if not any(found.state in (State.RUNNING, State.QUEUED) for found in statuses):
                break
            time.sleep(WATCH_S)
    raise typer.Exit(_verdict(statuses))


@app.command()
def logs(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as the log grows, until the run ends")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="an earlier attempt instead of the newest")] = None,
) -> None:
    """Print the log of a run."""
    from sweep.follow import read_log

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
    from sweep.cancel import cancellable, request

    file, run_ids = _split(names)
    sweep = load_sweep(file, output=output, data=data)
    chosen = cancellable(_plan(sweep), run_ids, state)
    if not chosen:
        err.print("nothing to cancel: no such run is queued or running", highlight=False)
        raise typer.Exit
    confirm(f"cancel {len(chosen)} runs ({_counted([row.status for row in chosen])})", yes=yes, dry_run=dry_run)
    request(sweep, [row.id for row in chosen])
    err.print(f"cancelled {len(chosen)} runs; those in work stop within seconds", highlight=False)


@app.command()
def tables(file: File = DEFAULT_FILE, output: Output = None, data: Data = None) -> None:
    """Write the chapter's tables from the results there are, as CSV, Markdown and LaTeX."""
    from analysis import AnalysisError
    from analysis.tables import write_tables

    sweep = load_sweep(file, output=output, data=data)
    statuses = survey(sweep)
    missing = {found.id: _why_missing(found) for found in statuses if found.state is not State.DONE}
    try:
        written = write_tables(sweep.folder, [planned_run(placed) for placed in sweep.runs], missing)
    except AnalysisError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the tables could not be written: {error}") from error
    for path in written:
        print(path)
    if missing:
        err.print(f"{len(missing)} of {len(statuses)} runs are missing; the tables say which and why", highlight=False)


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


def _plan(sweep: Sweep) -> list[PlanRow]:
    return make_plan(sweep, survey(sweep))


def _execute(
    sweep: Sweep, file: Path, chosen: Sequence[PlanRow], *, workers: int | None, wait: bool, yes: bool, dry_run: bool
) -> NoReturn:
    """Ask, start, and wait for the end; exit with what came of it."""
    from slurm.local import LocalExecutor, cores, default_workers
    from sweep.display import SubmitProgress, state_line
    from sweep.submit import Wait as Waiting
    from sweep.submit import start

    configured = sweep.execution.workers
    workers = workers or (configured if isinstance(configured, int) else default_workers())
    count = min(workers, len(chosen))
    confirm(f"execute {_amount(chosen)} in {count} local workers", yes=yes, dry_run=dry_run)
    executor = LocalExecutor()
    submitted = start(sweep, chosen, executor, count, threads=max(1, cores() // workers))
    if not wait:
        err.print(f"started; 'sweep watch {file}' shows the progress", highlight=False)
        raise typer.Exit
    with SubmitProgress(err, chosen) as progress:
        finished = Waiting(sweep, submitted, executor, progress.show, progress.say).until_ended()
    statuses = survey(sweep)
    err.print(state_line(statuses), highlight=False)
    if any(found.state is State.FAILED for found in statuses):
        err.print(f"see what failed with 'sweep status {file} --failed'", highlight=False)
    if not finished:
        err.print(f"continue with 'sweep submit {file}'", highlight=False)
    raise typer.Exit(_verdict(statuses))


def _nothing_to_submit(file: Path, rows: Sequence[PlanRow]) -> NoReturn:
    statuses = [row.status for row in rows]
    err.print(f"nothing to submit: {_counted(statuses)}", highlight=False)
    present = {found.state for found in statuses}
    if State.FAILED in present:
        err.print(f"failed runs wait for 'sweep retry {file}'", highlight=False)
    if State.STALE in present:
        err.print(f"stale runs keep their results until 'sweep submit {file} --stale'", highlight=False)
    if State.RUNNING in present or State.QUEUED in present:
        err.print(f"follow the others with 'sweep watch {file}'", highlight=False)
    raise typer.Exit(_verdict(statuses))


def _require_data(sweep: Sweep) -> None:
    needed = dict.fromkeys(placed.cell.spec.run.dataset for placed in sweep.runs)
    absent = [name for name in needed if name not in sweep.fingerprints]
    if absent:
        raise InputError(
            f"{sweep.data / absent[0]}: {absent[0]} is not prepared; run "
            f"'sweep data prepare {absent[0]} --source ARCHIVE --data {sweep.data}'"
        )


def _verdict(statuses: Sequence[RunStatus]) -> int:
    states = {found.state for found in statuses}
    if State.FAILED in states:
        return FAILED
    return 0 if states == {State.DONE} else UNFINISHED


def _why_missing(found: RunStatus) -> str:
    from sweep.display import last_line

    reason = found.state.value
    if found.cause:
        reason += f", {found.cause.value}"
    if found.state in (State.RUNNING, State.INTERRUPTED, State.CANCELLED):
        reason += f" after epoch {found.epoch} of {found.epochs}"
    return f"{reason}: {last_line(found.message)}" if found.state is State.FAILED and found.message else reason


def _draw_status(sweep: Sweep, file: Path, shown: Sequence[RunStatus], *, only_failed: bool, every: bool) -> None:
    from sweep.display import failures, legend, listed, matrix, run_table

    if not only_failed:
        out.print(matrix(make_plan(sweep, shown)), legend(shown), "", sep="\n")
        lines = shown if every else listed(shown)
        if lines:
            out.print(run_table(lines))
    elif not shown:
        out.print("no run failed")
    out.print(failures(shown, str(file)), end="", highlight=False, soft_wrap=True)


def _plan_entry(row: PlanRow) -> dict[str, Any]:
    return {
        **row.placed.cell.spec.run.model_dump(),
        "train_samples": row.placed.train_samples,
        "pool": row.placed.pool,
        "state": row.status.state.value,
        "estimate_s": round(row.estimate_s, 1),
    }


def _amount(rows: Sequence[PlanRow]) -> str:
    return f"{len(rows)} runs, about {hours(sum(row.remaining_s for row in rows))} of one device's time"


def _counted(statuses: Sequence[RunStatus]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts(statuses).items())


def _split(names: list[str] | None) -> tuple[Path, list[str]]:
    """Tell the sweep file from run ids: it is the first name, and ends in .yaml or .yml."""
    names = names or []
    if names and names[0].endswith((".yaml", ".yml")):
        return Path(names[0]), names[1:]
    return DEFAULT_FILE, names
