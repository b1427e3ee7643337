"""The command line: parses, asks, prints. What a command means is decided in the modules it calls.

Results go to stdout; progress, questions and errors to stderr. Exit codes: 0 fine, 1 the environment failed, 2 the
input is wrong, 3 some runs failed, 4 not finished yet (3 and 4 of a waited-for submit and of status --exit-code).
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sweep.cli.console import confirm, err
from sweep.cli.data import data_app
from sweep.cli.look import logs, plan, planned, status, watch
from sweep.cli.options import DEFAULT_FILE, ClusterFile, Data, DryRun, File, Names, Output, ShowScript, Yes, split
from sweep.cli.results import compare, export, figures, report, tables
from sweep.cli.upkeep import clean, doctor, verify
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.errors import InputError, MachineError, SweepError
from sweep.plan.rows import SUBMITTED, PlanRow
from sweep.status.look import Look, look
from sweep.status.state import ON_ITS_WAY, RunStatus, State, counts
from trainer.data.prepared import DataError

if TYPE_CHECKING:
    from sweep.submit.remedies import Remedy

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")

Workers = Annotated[int | None, typer.Option(min=1, help="worker processes on this machine")]
Wait = Annotated[
    bool | None, typer.Option("--wait/--no-wait", help="wait until the runs have ended (by itself: not on Slurm)")
]
Local = Annotated[bool, typer.Option("--local", help="execute on this machine, also where Slurm is")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Run a grid of trainings, on Slurm or here: plan, submit, status, retry, report."""


def submit(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    cluster: ClusterFile = None,
    local: Local = False,
    workers: Workers = None,
    wait: Wait = None,
    stale: Annotated[bool, typer.Option("--stale", help="train stale runs anew, setting their results aside")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    show_script: ShowScript = False,
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

    execute(sweep, choose, Call(file, workers, wait, yes, dry_run, show_script), local=local)


def retry(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    cluster: ClusterFile = None,
    local: Local = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="also runs that raised an exception, and would again unless it is mended")
    ] = False,
    workers: Workers = None,
    wait: Wait = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    show_script: ShowScript = False,
) -> None:
    """Try failed and interrupted runs again, or the named ones, each with what its cause calls for."""
    from sweep.cli.submit import Call, Chosen, execute
    from sweep.submit.cluster import ground, read_cluster_limits, target
    from sweep.submit.remedies import choose as choose_remedies

    file, run_ids = split(names)
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

    execute(sweep, choose, Call(file, workers, wait, yes, dry_run, show_script), local=local)


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

    file, run_ids = split(names)
    sweep = load_sweep(file, output=output, data=data)
    seen = look(sweep, max_age_s=0)
    chosen = cancellable(planned(sweep, seen), run_ids, state)
    if not chosen:
        err.print("nothing to cancel: no such run is queued or running", highlight=False)
        raise typer.Exit
    confirm(f"cancel {len(chosen)} runs ({_counted([row.status for row in chosen])})", yes=yes, dry_run=dry_run)
    request(sweep, [row.id for row in chosen])
    jobs = cancel_unwanted_jobs(seen, [row.id for row in chosen])
    with_jobs = f" and {jobs} jobs" if jobs else ""
    err.print(f"cancelled {len(chosen)} runs{with_jobs}; those in work stop within seconds", highlight=False)


for command in (  # in the order that '--help' lists them
    *(plan, submit, retry, status, watch, logs, cancel),
    *(doctor, verify, clean),
    *(tables, figures, compare, report, export),
):
    app.command()(command)


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
    if present.intersection(ON_ITS_WAY):
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


def _counted(statuses: Sequence[RunStatus]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts(statuses).items())
