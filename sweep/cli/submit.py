"""The commands that change what runs: submit, retry, cancel. Only parse, ask and print."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sweep.cli.console import confirm, err, tell
from sweep.cli.look import planned
from sweep.cli.options import DEFAULT_FILE, ClusterFile, Data, DryRun, File, Names, Output, ShowScript, Yes, split
from sweep.cli.where import Where, narrowed
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.plan.networks import with_networks
from sweep.plan.rows import SUBMITTED, PlanRow
from sweep.status.look import Look, look
from sweep.status.state import ON_ITS_WAY, RunStatus, State, counts

if TYPE_CHECKING:
    from sweep.submit.remedies import Remedy

Workers = Annotated[int | None, typer.Option(min=1, help="worker processes on this machine")]


Wait = Annotated[
    bool | None, typer.Option("--wait/--no-wait", help="wait until the runs have ended (by itself: not on Slurm)")
]


NewCode = Annotated[
    bool, typer.Option("--new-code", help="run the code as it is now, also where a run was begun with other code")
]


Local = Annotated[bool, typer.Option("--local", help="execute on this machine, also where Slurm is")]


def submit(
    file: File = DEFAULT_FILE,
    output: Output = None,
    data: Data = None,
    cluster: ClusterFile = None,
    local: Local = False,
    workers: Workers = None,
    wait: Wait = None,
    where: Where = None,
    stale: Annotated[bool, typer.Option("--stale", help="train stale runs anew, setting their results aside")] = False,
    new_code: NewCode = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    show_script: ShowScript = False,
) -> None:
    """Execute every run that is missing. Done and failed runs are left alone."""
    from sweep.cli.execute import Call, Chosen, execute
    from sweep.submit.others import without_others
    from sweep.submit.target import target

    sweep = with_networks(load_sweep(file, output=output, data=data, cluster=cluster), tell)
    goal = target(sweep, local=local, workers=workers)
    waits = goal.waits if wait is None else wait
    wanted = (*SUBMITTED, State.STALE) if stale else SUBMITTED
    among = narrowed(sweep, where)

    def choose(rows: Sequence[PlanRow], seen: Look) -> Chosen:
        rows = among(rows)
        chosen = without_others(seen, [row for row in rows if row.status.state in wanted])
        if not chosen:
            _nothing_to_submit(file, rows, waits=waits)
        _require_data(sweep)
        return Chosen(chosen)

    execute(sweep, goal, choose, Call(file, waits, yes, dry_run, show_script, new_code=new_code))


def retry(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    cluster: ClusterFile = None,
    local: Local = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="also runs that raised an exception, and would again unless it is mended")
    ] = False,
    where: Where = None,
    forget_nodes: Annotated[
        bool, typer.Option("--forget-nodes", help="use the nodes where jobs died again: they are repaired")
    ] = False,
    new_code: NewCode = False,
    workers: Workers = None,
    wait: Wait = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    show_script: ShowScript = False,
) -> None:
    """Try failed and interrupted runs again, or the named ones, each with what its cause calls for."""
    from sweep.cli.execute import Call, Chosen, execute
    from sweep.status.bad_nodes import forget
    from sweep.status.folder import SweepFolder
    from sweep.submit.others import without_others
    from sweep.submit.remedies import choose as choose_remedies
    from sweep.submit.start import companions
    from sweep.submit.target import target

    file, run_ids = split(names)
    if failed and run_ids:
        raise InputError("give '--failed' or run ids, not both")
    sweep = with_networks(load_sweep(file, output=output, data=data, cluster=cluster), tell)
    goal = target(sweep, local=local, workers=workers)
    waits = goal.waits if wait is None else wait
    if forget_nodes and not dry_run:
        forget(SweepFolder(sweep.folder))
    among = narrowed(sweep, where)

    def choose(rows: Sequence[PlanRow], seen: Look) -> Chosen:
        ground = goal.ground(seen)
        if ground is not None:
            ground = ground._replace(mended=forget_nodes)
        own = without_others(seen, among(rows), run_ids)
        remedies = choose_remedies(own, run_ids, every=failed, ground=ground)
        _say_remedies(remedies)
        chosen = [remedy for remedy in remedies if remedy.again]
        if not chosen:
            err.print("nothing to retry: no run failed" if not remedies else "nothing to retry", highlight=False)
            raise typer.Exit
        _require_data(sweep)
        again = [remedy.row for remedy in chosen]
        beside = companions(seen, rows, again)
        if beside:
            names = ", ".join(row.id for row in beside)
            err.print(f"share a job that is ended, and are submitted again: {names}", highlight=False, soft_wrap=True)
        return Chosen([*again, *beside], {remedy.row.id: remedy.change for remedy in chosen})

    how = Call(file, waits, yes, dry_run, show_script, mended=forget_nodes, new_code=new_code)
    execute(sweep, goal, choose, how)


def cancel(
    names: Names = None,
    output: Output = None,
    data: Data = None,
    state: Annotated[State | None, typer.Option(help="only runs in this state")] = None,
    where: Where = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Stop runs: the named ones, or all that are queued or running. Their checkpoints stay."""
    from sweep.submit.cancel import cancel_unwanted_jobs, cancellable, request
    from sweep.submit.others import without_others

    file, run_ids = split(names)
    sweep = load_sweep(file, output=output, data=data)
    seen = look(sweep, max_age_s=0)
    found = cancellable(narrowed(sweep, where)(planned(sweep, seen)), run_ids, state)
    chosen = without_others(seen, found, run_ids)
    for line in seen.notes:
        tell(line)
    if found and not chosen:
        raise InputError("nothing was cancelled: none of these runs is in a job of yours")
    if not chosen:
        err.print("nothing to cancel: no such run is queued or running", highlight=False)
        raise typer.Exit
    confirm(f"cancel {len(chosen)} runs ({_counted([row.status for row in chosen])})", yes=yes, dry_run=dry_run)
    request(sweep, [row.id for row in chosen])
    jobs = cancel_unwanted_jobs(seen, [row.id for row in chosen])
    with_jobs = f" and {jobs} jobs" if jobs else ""
    err.print(f"cancelled {len(chosen)} runs{with_jobs}; those in work stop within seconds", highlight=False)


def _say_remedies(remedies: Sequence["Remedy"]) -> None:
    """Print each remedy once, however many runs share it."""
    alike: dict[str, list[str]] = {}
    for remedy in remedies:
        alike.setdefault(remedy.words, []).append(remedy.row.id)
    for words, ids in alike.items():
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        err.print(f"{ids[0]}{more}: {words}", highlight=False, soft_wrap=True)


def _nothing_to_submit(file: Path, rows: Sequence[PlanRow], *, waits: bool) -> NoReturn:
    from sweep.cli.execute import verdict

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
