"""Look at the disk, at the processes and at Slurm, and say how every run of a sweep stands."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from slurm import queue
from slurm.acceptance import Standing, settle
from slurm.executor import Executor, Place
from slurm.jobs import ArrayRecord, JobView, Phase, Snapshot, Submission
from slurm.local import Local
from slurm.scheduler import Slurm
from sweep.config.schema import Sweep
from sweep.errors import MachineError
from sweep.status.evidence import Evidence
from sweep.status.folder import SweepFolder
from sweep.status.state import Carrier, Jobs, RunStatus, State, run_status
from trainer.records.alive import SUBMITTING_S, at_work, silent
from trainer.records.base import now
from trainer.records.files import RecordError, read_json, write_json
from trainer.records.process import is_alive
from trainer.records.result import Result

CACHE_S = 4.0  # commands in quick succession share one answer of Slurm's


class Look(NamedTuple):
    """How every run stands, in the plan's order; the results, by run id; the submissions; what Slurm says and how it
    answered.

    executors: by name, as they know now. places, jobs: of each unfinished run in the newest submission that has it.
    results: all that validate, stale ones too. submitting: by the submissions' tokens, as in Place. evidence: all that
    was read, by run id.
    """

    statuses: list[RunStatus]
    results: Mapping[str, Result]
    submissions: list[Submission]
    submitting: Mapping[str, bool | None]
    queue: Snapshot
    executors: Mapping[str, Executor]
    places: Mapping[str, Place]
    jobs: Mapping[str, JobView]
    evidence: Mapping[str, Evidence]


def survey(sweep: Sweep, executor: Executor | None = None) -> list[RunStatus]:
    """Give the state of every run, in the plan's order. Raises MachineError when the records cannot be read."""
    return look(sweep, executor).statuses


def look(sweep: Sweep, executor: Executor | None = None, *, max_age_s: float = CACHE_S) -> Look:
    """Look at everything; Slurm is asked when its last answers are older than max_age_s and not yet the last word."""
    folder = SweepFolder(sweep.folder)
    ids = [placed.id for placed in sweep.runs]
    submissions, submitting = read_submissions(folder)
    evidence = folder.read_evidence(ids)
    snapshot = folder.read_queue()
    asked = _to_ask(submissions, submitting, evidence, snapshot)
    if asked and _outdated(snapshot, asked, max_age_s):
        snapshot = queue.refresh(asked, snapshot, since=submissions[0].created)
        _remember(folder, snapshot)
        # A job that ended while Slurm was asked has left more than was read before.
        evidence.update(folder.read_evidence(run_id for run_id in ids if evidence[run_id].result is None))
    known: list[Executor] = [Slurm(snapshot), executor if executor and executor.name == Local.name else Local()]
    executors = {one.name: one for one in known}
    everything = _places(submissions, submitting)
    places: dict[str, Place] = {}
    views: dict[str, JobView] = {}
    statuses = []
    for placed, run_id in zip(sweep.runs, ids, strict=True):
        found = evidence[run_id]
        jobs = Jobs()
        if found.result is None:
            held = [_carrier(folder, place, executors, evidence) for place in everything.get(run_id, [])]
            attempt = found.attempt
            newest = next((index for index in reversed(range(len(held))) if held[index]), None)
            carrier = held[newest] if newest is not None else None
            if carrier and newest is not None:
                places[run_id], views[run_id] = everything[run_id][newest], carrier.job
            own = next((one.job for one in held if one and attempt and one.token == attempt.submission), None)
            # A job without an id that is not in doubt is a local worker: whether that lives, its process tells.
            by_scheduler = own if own and (own.id is not None or own.phase is Phase.UNKNOWN) else None
            jobs = Jobs(carrier, by_scheduler, at_work(attempt))
        fingerprint = sweep.fingerprints.get(placed.spec.run.dataset)
        statuses.append(run_status(placed, found, jobs, fingerprint, folder.run(run_id)))
    results = {run_id: found.result for run_id, found in evidence.items() if found.result is not None}
    return Look(statuses, results, submissions, submitting, snapshot, executors, places, views, evidence)


def read_submissions(folder: SweepFolder) -> tuple[list[Submission], dict[str, bool | None]]:
    """Read every submission, oldest first, and by token whether its process is still at it.

    A process that ends meanwhile has written more than was read: once it is dead, its last word is read. Raises
    MachineError for a damaged record.
    """
    submissions = []
    submitting: dict[str, bool | None] = {}
    try:
        for record in folder.read_submissions():
            alive = is_alive(record.submitter) if record.submitter else False
            if alive is None and silent(record.created, SUBMITTING_S):
                alive = False  # and should it live after all: its runs' new submission withdraws what it may yet send
            last = read_json(folder.submission(record.token), Submission) if alive is False else None
            submissions.append(last or record)
            submitting[record.token] = alive
    except RecordError as error:
        raise MachineError(f"{error}; look at it, and remove it once none of its jobs runs") from error
    return submissions, submitting


def unconfirmed(look: Look) -> list[str]:
    """Name the arrays of which nobody knows yet whether Slurm has them, and how many runs wait for that."""
    jobs = (look.jobs.get(status.id) for status in look.statuses if status.state is State.QUEUED)
    waiting = Counter(job.message for job in jobs if job and job.unconfirmed)
    return [f"{count} runs wait: {words}" for words, count in waiting.items()]


def _places(submissions: Sequence[Submission], submitting: Mapping[str, bool | None]) -> dict[str, list[Place]]:
    """List where each run has been put, oldest first."""
    found: dict[str, list[Place]] = {}
    for submission in submissions:
        for number, tasks in enumerate(submission.tasks):
            for index, task in enumerate(tasks):
                place = Place(submission, submitting[submission.token], number, index)
                for run_id in task:
                    found.setdefault(run_id, []).append(place)
    return found


def _to_ask(
    submissions: Sequence[Submission],
    submitting: Mapping[str, bool | None],
    evidence: Mapping[str, Evidence],
    snapshot: Snapshot,
) -> list[ArrayRecord]:
    """Choose the arrays of which Slurm may have more to say: some run is not done, and not every job's end is known."""
    chosen = []
    for submission in submissions:
        for array in submission.arrays:
            if array.asked is None or queue.settled(array, snapshot):
                continue
            if settle(array, submitting[submission.token], snapshot, now()).standing is Standing.REFUSED:
                continue
            if not all(_is_done(evidence, run_id) for task in array.tasks for run_id in task):
                chosen.append(array)
    return chosen


def _is_done(evidence: Mapping[str, Evidence], run_id: str) -> bool:
    return run_id in evidence and evidence[run_id].result is not None


def _outdated(snapshot: Snapshot, arrays: Sequence[ArrayRecord], max_age_s: float) -> bool:
    asked = snapshot.squeue.asked
    newest = max(array.asked for array in arrays if array.asked)
    return asked is None or asked < newest or now() - asked > timedelta(seconds=max_age_s)


def _remember(folder: SweepFolder, snapshot: Snapshot) -> None:
    """Keep Slurm's answers for the next command; one who may only read the folder asks again instead."""
    try:
        write_json(folder.queue, snapshot)
    except OSError:
        return


def _carrier(
    folder: SweepFolder, place: Place, executors: Mapping[str, Executor], evidence: Mapping[str, Evidence]
) -> Carrier | None:
    """What is known of a run's job in one submission; None if it never had one, or has none any more."""
    token = place.submission.token
    job = executors[place.submission.executor].look(place, folder.jobs(token))
    if job is None:
        return None
    ended = job.phase is Phase.ENDED
    return Carrier(token, job, not ended or any(_has_begun(evidence.get(run_id), token) for run_id in place.runs))


def _has_begun(found: Evidence | None, token: str) -> bool:
    if found is None or found.result is not None:
        return True
    return found.attempt is not None and found.attempt.submission == token
