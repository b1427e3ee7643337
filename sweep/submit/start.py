"""Start the runs that are to be executed: first the intent on disk, then the jobs.

Exactly once rests on three things. An intent is a file that only one process can create, so of two who submit at the
same moment one looks again. An array that Slurm gave no clear answer about is found by its tag later, or withdrawn
before its runs go into another. And every job claims a run before it trains it, whatever went wrong before.
"""

import os
import signal
from collections.abc import Callable, Sequence

from slurm.acceptance import withdraw
from slurm.code import FrozenCode, misread, snapshot, store
from slurm.commands import SlurmError
from slurm.executor import Started
from slurm.jobs import Submission
from sweep.config.schema import Sweep
from sweep.errors import InputError, MachineError
from sweep.plan.record import plan_record
from sweep.plan.rows import PlanRow
from sweep.status.folder import SweepFolder
from sweep.status.look import Look
from sweep.status.state import ON_ITS_WAY, State
from sweep.submit.batches import bundles, job_name
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
    code: FrozenCode,
    show: Callable[[Sequence[str]], None] | None = None,
) -> Started:
    """Write the intent and the bundles, and have the executor start the jobs.

    A cancelled run that is submitted again is no longer cancelled; files of another recipe or dataset are set aside
    whole. code: as it is now, for the jobs that run that. show: is given what will be executed, right before it is.
    Raises Overtaken, InputError for a folder the executor cannot work in, and MachineError.
    """
    executor, folder = planned.executor, SweepFolder(sweep.folder)
    problem = executor.unusable()
    if problem:
        raise InputError(problem)
    _check_kept_code(sweep, planned, rows, code)
    _end_stalled(look, rows)

    def keep(submission: Submission) -> None:
        write_json(folder.submission(submission.token), submission)

    try:
        intent = _announce(sweep, folder, planned, rows, look)
        if code.record in intent.codes:
            store(code, folder.submissions)
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


def companions(look: Look, rows: Sequence[PlanRow], chosen: Sequence[PlanRow]) -> list[PlanRow]:
    """The unfinished runs that share a job with a stalled one of the chosen: it is ended, and they go on elsewhere."""
    jobs = [look.jobs[row.id] for row in chosen if row.status.state is State.STALLED and row.id in look.jobs]
    shared = {run_id for job in jobs if job.id for run_id in job.runs} - {row.id for row in chosen}
    return [row for row in rows if row.id in shared and row.status.state in ON_ITS_WAY]


def _check_kept_code(sweep: Sweep, planned: Planned, rows: Sequence[PlanRow], code: FrozenCode) -> None:
    """Have each code that runs go on with read what its jobs are to be told. Raises InputError where one cannot."""
    told = {bundle.code: bundle for bundle in bundles(sweep, "", rows, planned.batches) if bundle.code != code.record}
    for kept, bundle in told.items():
        place = snapshot(SweepFolder(sweep.folder).submissions, kept) if kept else None
        wrong = misread(place, bundle) if place else None
        if wrong:
            words = f"cannot read today's job files ({wrong}); '--new-code' continues with the code as it is now"
            raise InputError(f"{place}: {bundle.tasks[0][0].run.id} was begun with this code, which {words}")


def _end_stalled(look: Look, rows: Sequence[PlanRow]) -> None:
    """End the jobs of runs that show no sign any more, and their processes here. Raises MachineError."""
    stalled = [row.id for row in rows if row.status.state is State.STALLED]
    jobs = [look.jobs[run_id] for run_id in stalled if run_id in look.jobs]
    try:
        for executor in look.executors:
            executor.cancel([job for job in jobs if job.executor == executor.name])
    except SlurmError as error:
        raise MachineError(f"the jobs of {', '.join(stalled)} could not be ended: {error}") from error
    for run_id in stalled:
        attempt = look.evidence[run_id].attempt
        if attempt and at_work(attempt):
            os.kill(attempt.process.pid, signal.SIGKILL)


def _intent(sweep: Sweep, planned: Planned, rows: Sequence[PlanRow], token: str) -> Submission:
    arrays = [batch.array for batch in planned.batches if batch.array]
    tagged = [array.model_copy(update={"tag": job_name(sweep, token, n)}) for n, array in enumerate(arrays)]
    carried = dict.fromkeys(run_id for array in arrays for task in array.tasks for run_id in task)
    listed = list(carried) or [row.id for row in rows]
    return Submission(
        token=token,
        created=now(),
        executor=planned.executor.name,
        submitter=this_process(),
        runs=listed,
        arrays=tagged,
        codes=[batch.code for batch in planned.batches if batch.code],
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
