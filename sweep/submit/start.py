"""Start the runs that are to be executed: first the intent on disk, then the jobs.

Exactly once rests on three things. An intent is a file that only one process can create, so of two who submit at the
same moment one looks again. An array that Slurm gave no clear answer about is found by its tag later, or withdrawn
before its runs go into another. And every job claims a run before it trains it, whatever went wrong before.
"""

from collections.abc import Callable, Sequence

from slurm.acceptance import withdraw
from slurm.executor import Started
from slurm.jobs import Submission
from sweep.config.schema import Sweep
from sweep.errors import InputError, MachineError
from sweep.plan.record import plan_record
from sweep.plan.rows import PlanRow
from sweep.status.folder import SweepFolder
from sweep.status.look import Look
from sweep.status.state import State
from sweep.submit.batches import bundles
from sweep.submit.target import Planned
from trainer.records.alive import at_work
from trainer.records.base import now
from trainer.records.claim import close_dead
from trainer.records.files import write_json
from trainer.records.process import this_process
from trainer.records.run import other_work


class Overtaken(Exception):
    """Someone else made a submission since the look this one was chosen by."""


def start(
    sweep: Sweep,
    planned: Planned,
    rows: Sequence[PlanRow],
    look: Look,
    show: Callable[[Sequence[str]], None] | None = None,
) -> Started:
    """Write the intent and the bundles, and have the executor start the jobs.

    A cancelled run that is submitted again is no longer cancelled; files of another recipe or dataset are set aside
    whole. show: is given what will be executed, right before it is. Raises Overtaken, InputError for a folder the
    executor cannot work in, and MachineError.
    """
    executor, folder = planned.executor, SweepFolder(sweep.folder)
    problem = executor.unusable()
    if problem:
        raise InputError(problem)

    def keep(submission: Submission) -> None:
        write_json(folder.submission(submission.token), submission)

    try:
        intent = _announce(sweep, folder, planned, rows, look)
        jobs = folder.jobs(intent.token)
        for number, bundle in enumerate(bundles(sweep, intent.token, rows, planned.batches)):
            jobs.array(number).mkdir(parents=True, exist_ok=True)
            write_json(jobs.bundle(number), bundle)
        if show:
            show(executor.scripts(intent))
        return executor.start(intent, keep)
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the submission could not be written: {error}") from error


def preview(sweep: Sweep, planned: Planned, rows: Sequence[PlanRow], look: Look) -> list[str]:
    """What `start` would have the executor execute; writes nothing."""
    token = SweepFolder(sweep.folder).coming_token(look.submissions)
    return planned.executor.scripts(_intent(sweep, planned, rows, token))


def _intent(sweep: Sweep, planned: Planned, rows: Sequence[PlanRow], token: str) -> Submission:
    arrays = [batch.array for batch in planned.batches if batch.array]
    tagged = [array.model_copy(update={"tag": f"{sweep.name}.{token}.{number}"}) for number, array in enumerate(arrays)]
    listed = [run_id for array in arrays for task in array.tasks for run_id in task] or [row.id for row in rows]
    return Submission(
        token=token,
        created=now(),
        executor=planned.executor.name,
        submitter=this_process(),
        runs=listed,
        arrays=tagged,
    )


def _announce(sweep: Sweep, folder: SweepFolder, planned: Planned, rows: Sequence[PlanRow], look: Look) -> Submission:
    """Write the intent, then make room for the runs it names. Raises Overtaken and OSError."""
    folder.submissions.mkdir(parents=True, exist_ok=True)
    folder.runs.mkdir(exist_ok=True)
    intent = _intent(sweep, planned, rows, folder.next_token(look.submissions))
    if not folder.create_submission(intent):
        raise Overtaken
    write_json(folder.plan, plan_record(sweep))
    withdraw(folder.submissions, look.submissions, look.submitting, look.queue)
    for row in rows:
        _make_room(folder, sweep, row)
    return intent


def _make_room(folder: SweepFolder, sweep: Sweep, row: PlanRow) -> None:
    """Clear a run's folder of what would keep it from running: a cancel request, a dead attempt, other work.

    Other records that cannot be read stay: an attempt does without them and writes them anew.
    """
    run_folder = folder.run(row.id)
    run_folder.cancel.unlink(missing_ok=True)
    evidence = folder.read_evidence([row.id])[row.id]
    if evidence.result is not None and row.status.state is not State.STALE:
        return  # finished since the plan was made
    attempt = evidence.attempt
    if attempt and attempt.outcome is None:
        if attempt.number != row.status.attempt or at_work(attempt):
            return  # begun by someone else since the plan was made
        if row.status.state in (State.INTERRUPTED, State.FAILED) and row.status.cause:
            close_dead(
                run_folder,
                attempt.number,
                outcome="failed" if row.status.state is State.FAILED else "interrupted",
                cause=row.status.cause,
                message=row.status.message,
            )
    spec = row.placed.spec
    found = evidence.commitment
    other = other_work(found, spec, sweep.fingerprints.get(spec.run.dataset)) if found else None
    if evidence.result is not None or other:
        folder.set_aside(row.id)
    elif run_folder.result.exists():  # damaged: the run can do without, and may have checkpoints to go on from
        folder.set_aside(row.id, run_folder.result)
