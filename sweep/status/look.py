"""Look at the disk, at the processes and at Slurm, and say how every run of a sweep stands."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from slurm.executor import Executor, Job
from slurm.jobs import Phase, Snapshot, Submission
from slurm.local import Local
from slurm.origin import unseen
from slurm.scheduler import Slurm
from sweep.config.schema import Sweep
from sweep.errors import MachineError
from sweep.status.evidence import Evidence
from sweep.status.folder import SweepFolder
from sweep.status.state import Carrier, Jobs, RunStatus, State, run_status
from trainer.records.alive import SUBMITTING_S, at_work, silent, stalled_s
from trainer.records.attempt import AttemptRecord
from trainer.records.files import RecordError, read_json, write_json
from trainer.records.process import is_alive
from trainer.records.result import Result

_NEAR = {Phase.ENDED: 0, Phase.UNKNOWN: 1, Phase.WAITING: 2, Phase.RUNNING: 3}
CACHE_S = 4.0  # commands in quick succession share one answer of Slurm's


class Look(NamedTuple):
    """How every run stands, in the plan's order; the results, by run id; the submissions; what Slurm says and how it
    answered.

    results: all that validate, stale ones too. submitting: by token, whether the submission's process is still at it;
    None when it is on another host. executors: as they know now. jobs: by id of an unfinished run, the newest that
    carries it; rivals: others that would, were they to start first. evidence: all that was read, by run id.
    """

    statuses: list[RunStatus]
    results: Mapping[str, Result]
    submissions: list[Submission]
    submitting: Mapping[str, bool | None]
    executors: Sequence[Executor]
    queue: Snapshot
    jobs: Mapping[str, Job]
    rivals: Mapping[str, Sequence[Job]]
    evidence: Mapping[str, Evidence]

    @property
    def notes(self) -> list[str]:
        """What the user should know of jobs that are another sweep's, or another user's."""
        return [note for executor in self.executors for note in executor.notes]


def survey(sweep: Sweep) -> list[RunStatus]:
    """The state of every run, in the plan's order. Raises MachineError when the records cannot be read."""
    return look(sweep).statuses


def look(sweep: Sweep, *, max_age_s: float = CACHE_S) -> Look:
    """Look at everything; Slurm is asked when its last answers are older than max_age_s and not yet the last word."""
    folder = SweepFolder(sweep.folder)
    ids = [placed.id for placed in sweep.runs]
    submissions, submitting = read_submissions(folder)
    evidence = folder.read_evidence(ids)
    known = folder.read_queue()
    origins = [submission.origin for submission in submissions]
    others = {origin.uid: folder.read_queue(origin.uid) for origin in origins if origin and unseen(origin)}
    slurm = Slurm(folder.submissions, queue=known, others=others)
    executors: Sequence[Executor] = (slurm, Local(folder.submissions))
    done = {run_id for run_id, found in evidence.items() if found.result is not None}
    seen: list[Job] = []
    for executor in executors:
        its = [submission for submission in submissions if submission.executor == executor.name]
        seen += executor.look(its, submitting, done, max_age_s=max_age_s)
    if slurm.queue is not known:
        _remember(folder, slurm.queue)
        # A job that ended while Slurm was asked has left more than was read before.
        evidence.update(folder.read_evidence(run_id for run_id in ids if run_id not in done))
    carriers = _by_run(seen, submissions)
    jobs: dict[str, Job] = {}
    rivals: dict[str, list[Job]] = {}
    statuses = []
    for placed, run_id in zip(sweep.runs, ids, strict=True):
        found = evidence[run_id]
        work = Jobs()
        if found.result is None:
            among = carriers.get(run_id, [])
            if among:
                among = _carrier_last(among, found.attempt)
                jobs[run_id] = among[-1]
                rivals[run_id] = [job for job in among[:-1] if job.submission == among[-1].submission]
            work = _jobs_of(run_id, found, among, evidence, sweep.cluster.section.stall_s if sweep.cluster else None)
        fingerprint = sweep.fingerprints.get(placed.spec.run.dataset)
        statuses.append(run_status(placed, found, work, fingerprint, folder.run(run_id)))
    results = {run_id: found.result for run_id, found in evidence.items() if found.result is not None}
    return Look(statuses, results, submissions, submitting, executors, slurm.queue, jobs, rivals, evidence)


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
    waiting = Counter(job.view.message for job in jobs if job and not job.confirmed)
    return [f"{count} runs wait: {words}" for words, count in waiting.items()]


def _by_run(jobs: Sequence[Job], submissions: Sequence[Submission]) -> dict[str, list[Job]]:
    """List the jobs that carry each run, in the order of their submissions."""
    order = {submission.token: number for number, submission in enumerate(submissions)}
    found: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: order[job.submission]):
        for run_id in job.runs:
            found.setdefault(run_id, []).append(job)
    return found


def _carrier_last(jobs: list[Job], attempt: AttemptRecord | None) -> list[Job]:
    """Order the jobs that carry a run so that the one which does it comes last.

    That is of the newest submission, and where that has sent it to several pools the job that has begun the run, or the
    one that is nearest to it.
    """
    newest = jobs[-1].submission

    def order(job: Job) -> tuple[bool, bool, int, bool]:
        began = attempt is not None and attempt.submission == newest and attempt.job == job.id
        return (job.submission == newest, began, _NEAR[job.view.phase], not job.view.cancelled)

    return jobs if len(jobs) == 1 or jobs[-2].submission != newest else sorted(jobs, key=order)


def _jobs_of(
    run_id: str, found: Evidence, jobs: Sequence[Job], evidence: Mapping[str, Evidence], stall_s: float | None
) -> Jobs:
    """Say who works, or will, on a run that is not done; jobs: those that carry it, oldest first."""
    attempt = found.attempt
    own = next((job.view for job in reversed(jobs) if attempt and job.submission == attempt.submission), None)
    # A job without an id that is not in doubt is a local worker: whether that lives, its process tells.
    by_scheduler = own if own and (own.id is not None or own.phase is Phase.UNKNOWN) else None
    alive = at_work(attempt)
    silence_s = stalled_s(attempt, found.progress, stall_s) if attempt and attempt.outcome is None else None
    if not jobs:
        return Jobs(None, by_scheduler, alive, silence_s)
    newest = jobs[-1]
    began = any(_has_begun(evidence.get(run_id), newest.submission) for run_id in newest.runs)
    carrier = Carrier(newest.submission, newest.view, began, first=newest.runs[0] == run_id)
    return Jobs(carrier, by_scheduler, alive, silence_s)


def _has_begun(found: Evidence | None, token: str) -> bool:
    if found is None or found.result is not None:
        return True
    return found.attempt is not None and found.attempt.submission == token


def _remember(folder: SweepFolder, snapshot: Snapshot) -> None:
    """Keep Slurm's answers for the next command; one who may only read the folder asks again instead."""
    try:
        write_json(folder.queue, snapshot)
    except OSError:
        return
