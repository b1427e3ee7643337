"""Carry out a submit or a retry: say what will be done, ask, start, wait. On Slurm where the sweep names a cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import typer

from slurm.code import FrozenCode, freeze
from sweep.cli.console import confirm, err
from sweep.config.own_code import own_code
from sweep.config.schema import Sweep
from sweep.errors import MachineError
from sweep.plan.rows import PlanRow, make_plan
from sweep.plan.timings import learn
from sweep.status.bad_nodes import bad_nodes
from sweep.status.folder import SweepFolder
from sweep.status.look import Look, look, unconfirmed
from sweep.status.state import RunStatus, State
from sweep.submit.code import choose_codes, code_words
from sweep.submit.remedies import Change
from sweep.submit.start import Overtaken, preview, start
from sweep.submit.target import Planned, Target
from sweep.words import hours

if TYPE_CHECKING:
    from sweep.cli.progress import SubmitProgress

FAILED, UNFINISHED = 3, 4
LOOKS = 5  # how often a submission that others overtake is chosen anew


class Chosen(NamedTuple):
    """The runs to execute, and by id what each is given beyond its pool's resources."""

    rows: Sequence[PlanRow]
    changes: Mapping[str, Change] = {}


class Call(NamedTuple):
    """How the user wants it done. mended: the nodes where jobs died are used again."""

    file: Path
    wait: bool
    yes: bool
    dry_run: bool
    show_script: bool = False
    mended: bool = False
    new_code: bool = False


class Words(NamedTuple):
    """What is said of a submission: before it is made, when it is not waited for, when Ctrl-C ended the waiting."""

    action: str
    left: str
    stopped: str


WORDS = {
    "slurm": Words(
        "submit {amount}, in {jobs} jobs",
        "you may log out; 'sweep status {file}' shows how far they are",
        "the jobs go on; see them with 'sweep watch {file}'",
    ),
    "local": Words(
        "execute {amount} in {jobs} local workers",
        "started; 'sweep watch {file}' shows the progress",
        "continue with 'sweep submit {file}'",
    ),
}
Choose = Callable[[Sequence[PlanRow], Look], Chosen]


def execute(sweep: Sweep, target: Target, choose: Choose, call: Call) -> NoReturn:
    """Choose runs by a fresh look, ask once, start them, wait if wanted; exit with what came of it.

    When someone else submits between the look and the intent, it is looked again, so that no run is submitted twice.
    Who waits on a cluster that takes no more jobs of the user now sends the rest as room comes, with the code of now.
    """
    from sweep.cli.progress import SubmitProgress

    code = freeze(own=own_code(sweep))
    said: Sequence[str] = ()
    overtaken = 0
    sent: list[PlanRow] = []
    left: Mapping[str, State] = {}  # for later, by run id, as they stood when they were chosen
    chosen = Chosen([])
    progress: SubmitProgress | None = None
    while overtaken < LOOKS:
        seen = look(sweep, max_age_s=0)
        for line in [*unconfirmed(seen), *seen.notes]:
            err.print(line, highlight=False, soft_wrap=True)
        rows = make_plan(sweep, seen.statuses, learn(sweep, seen))
        if left:
            chosen = chosen._replace(rows=[row for row in rows if left.get(row.id) is row.status.state])
        else:
            chosen = choose(rows, seen)
        bad = [] if call.mended else bad_nodes(SweepFolder(sweep.folder), seen)
        codes = choose_codes(sweep, chosen.rows, seen, code.record, new=call.new_code)
        if said != (said := code_words(codes, code.record)):
            for line in said:
                err.print(line, highlight=False, soft_wrap=True)
        planned = target.plan(chosen.rows, chosen.changes, bad, codes)
        going = [row for row in chosen.rows if row.id not in planned.left_out]
        try:
            _submit(sweep, planned, going, seen, code, call)
        except Overtaken:
            err.print("someone else submitted at this moment; looking again", highlight=False)
            overtaken += 1
            call = call._replace(yes=True)
            continue
        sent += going
        left = {row.id: row.status.state for row in chosen.rows if row.id in planned.left_out}
        if not call.wait:
            err.print(WORDS[planned.executor.name].left.format(file=call.file), highlight=False)
            raise typer.Exit
        progress = progress or SubmitProgress(err, chosen.rows)
        _wait(sweep, target, planned, sent, [row for row in chosen.rows if row.id in left], call, progress)
        call = call._replace(yes=True)
    raise MachineError(f"{sweep.folder}: others submitted {LOOKS} times in a row; try again")


def amount(rows: Sequence[PlanRow]) -> str:
    """Say how many runs, and for how long they would keep a device busy."""
    return f"{len(rows)} runs, about {hours(sum(row.remaining_s * row.gpus for row in rows))} of one device's time"


def verdict(statuses: Sequence[RunStatus]) -> int:
    """The exit code that says whether runs failed, or are not finished."""
    states = {found.state for found in statuses}
    if State.FAILED in states:
        return FAILED
    return 0 if states == {State.DONE} else UNFINISHED


def _submit(sweep: Sweep, planned: Planned, rows: Sequence[PlanRow], seen: Look, code: FrozenCode, call: Call) -> None:
    """Start what is planned, once the user has agreed. Raises Overtaken, MachineError."""
    from sweep.cli.tables import array_line

    if not planned.batches:
        if planned.left_out and not call.wait:
            remedy = "'sweep submit --wait' sends the runs when there is room"
            raise MachineError(f"nothing was submitted: {'; '.join(planned.full)}; {remedy}")
        return
    words = WORDS[planned.executor.name]
    if call.show_script and call.dry_run:
        _print_scripts(preview(sweep, planned, rows, seen))
    action = words.action.format(amount=amount(rows), jobs=planned.jobs)
    details = [*(array_line(batch.array) for batch in planned.batches if batch.array), *planned.notes]
    confirm(action, details, yes=call.yes, dry_run=call.dry_run)
    started = start(sweep, planned, rows, seen, code, _print_scripts if call.show_script else None)
    accepted = [array for array in started.submission.arrays if array.job]
    if accepted:
        count = sum(len(array.tasks) for array in accepted)
        ids = ", ".join(array.job or "" for array in accepted)
        err.print(f"submitted {count} jobs in {len(accepted)} arrays: {ids}", highlight=False)
    if started.problems:
        follow = "; 'sweep status' says what became of it, the next 'sweep submit' sends what Slurm has not"
        raise MachineError("\n       ".join(started.problems) + (follow if started.unclear else ""))


def _wait(
    sweep: Sweep,
    target: Target,
    planned: Planned,
    sent: Sequence[PlanRow],
    left: Sequence[PlanRow],
    call: Call,
    progress: "SubmitProgress",
) -> None:
    """Wait for the end of what was sent, and conclude; or until there is room for more of what is left."""
    from sweep.submit.wait import until_ended

    with progress:
        if left:
            progress.say(f"{len(left)} runs wait for room: {'; '.join(planned.full)}")
        room = (lambda: target.has_room(left)) if left else None
        ended = until_ended(sweep, [row.id for row in sent], planned.executor, progress.show, progress.say, room)
    if not ended or not left:
        stopped = WORDS[planned.executor.name].stopped.format(file=call.file)
        _conclude(sweep, call.file, None if ended else stopped)


def _print_scripts(scripts: Sequence[str]) -> None:
    print("\n".join(scripts), end="", flush=True)


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
