"""The Slurm executor: an sbatch an array, one squeue and at most one sacct a look, however many jobs there are."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from slurm.acceptance import Settled, Standing, settle
from slurm.code import snapshot
from slurm.commands import Refused, Unclear
from slurm.executor import Job, Keep, Look, Report, Started
from slurm.interrupts import counted
from slurm.jobs import ArrayRecord, JobView, Phase, Snapshot, Submission, SubmissionFolder
from slurm.origin import is_copy, origin_here, owner, unseen
from slurm.queue import refresh, settled, tasks_there
from slurm.submission import cancel, log_path, script, send, unusable_folder
from slurm.timeouts import ASK_S
from slurm.view import last_known, view
from trainer.records.base import now

LOG_TAIL = 20_000  # bytes of a job's output that are searched for how it ended
POLL_S = 0.5


class Slurm:
    """Sends arrays, at most `max_parallel` jobs of a pool at a time. folder holds the submissions.

    queue: what Slurm last said of its jobs; `look` replaces it when it has asked. others: what it last said to other
    users of theirs, by uid.
    """

    name = "slurm"

    def __init__(
        self,
        folder: Path,
        *,
        queue: Snapshot | None = None,
        others: Mapping[int, Snapshot] = {},
        max_parallel: int | None = None,
    ) -> None:
        self.folder = folder
        self.queue = queue or Snapshot()
        self.others = others
        self.max_parallel = max_parallel
        self.notes: Sequence[str] = ()
        self._there: dict[str, set[int] | str] = {}  # by array, what scontrol showed in this look

    def unusable(self) -> str | None:
        return unusable_folder(self.folder.absolute().parent)

    def scripts(self, submission: Submission) -> list[str]:
        folder = self._job_folder(submission)
        return [
            script(
                array,
                folder.array(number),
                folder.bundle(number),
                self._code(submission, number),
                max_parallel=self._share(submission, array),
            )
            for number, array in enumerate(submission.arrays)
        ]

    def start(self, submission: Submission, keep: Keep) -> Started:
        """After an unclear answer nothing more is sent: the next look finds out what Slurm took."""
        folder = self._job_folder(submission)
        record = submission.model_copy(update={"origin": origin_here(self.folder.absolute())})
        problems: list[str] = []
        unclear = False

        def told(number: int, **changes: object) -> None:
            nonlocal record
            arrays = list(record.arrays)
            arrays[number] = arrays[number].model_copy(update=changes)
            record = record.model_copy(update={"arrays": arrays})
            keep(record)

        for number, array in enumerate(submission.arrays):
            runs = sum(map(len, array.tasks))
            if unclear:
                told(number, refused="not sent, for Slurm gave no clear answer to the one before")
                continue
            told(number, asked=now())
            share, code = self._share(submission, array), self._code(submission, number)
            try:
                told(number, job=send(array, folder.array(number), folder.bundle(number), code, max_parallel=share))
            except Refused as error:
                told(number, refused=str(error))
                problems.append(f"pool '{array.pool}': Slurm refused {runs} runs: {error}")
            except Unclear as error:
                unclear = True
                problems.append(f"pool '{array.pool}': Slurm gave no clear answer about {runs} runs: {error}")
        return Started(record, problems, unclear)

    def look(
        self,
        submissions: Sequence[Submission],
        submitting: Mapping[str, bool | None],
        done: Collection[str],
        *,
        max_age_s: float,
    ) -> list[Job]:
        self._there = {}
        copied = [submission for submission in submissions if is_copy(submission.origin, self.folder.absolute())]
        notes = [
            f"{submission.token} is a copy: its jobs work for {submission.origin.folder}"
            for submission in copied
            if submission.origin and not all(run_id in done for run_id in submission.runs)
        ]
        submissions = [submission for submission in submissions if submission not in copied]
        asked = [
            array
            for submission in submissions
            if unseen(submission.origin) is None
            for array in submission.arrays
            if self._may_say_more(array, submitting[submission.token], done)
        ]
        if asked and self._outdated(asked, max_age_s):
            self.queue = refresh(asked, self.queue, since=submissions[0].created)
        jobs = [
            job
            for submission in submissions
            for number in range(len(submission.arrays))
            for job in self._jobs(submission, number, submitting[submission.token], done)
        ]
        theirs = Counter(job.owner for job in jobs if job.is_anothers for run_id in job.runs if run_id not in done)
        notes += [
            f"{count} runs are in jobs of {user}, who alone may end them or send them again"
            for user, count in theirs.items()
        ]
        self.notes = notes
        return jobs

    def cancel(self, jobs: Sequence[Job]) -> int:
        tasks: dict[tuple[str, str, str | None], dict[int, Job]] = {}
        for job in jobs:
            if job.id is not None and job.name is not None and job.owner is None:
                array, _, number = job.id.partition("_")
                clusters = job.resources.clusters if job.resources else None
                tasks.setdefault((job.name, array, clusters), {})[int(number)] = job
        for (name, array, clusters), chosen in tasks.items():
            whole = all(len(chosen) == job.siblings for job in chosen.values())
            cancel(name, [array] if whole else [f"{array}_{number}" for number in sorted(chosen)], clusters)
        return sum(map(len, tasks.values()))

    def wait(self, look: Look, report: Report) -> bool:
        """Ctrl-C ends the waiting, not the jobs. The first looks follow each other closely, for short runs' sake."""
        pause_s = POLL_S
        with counted() as interrupts:
            while not interrupts.count:
                if not look():
                    return True
                pause_s = min(ASK_S, 2 * pause_s)
                deadline = time.monotonic() + pause_s
                while time.monotonic() < deadline and not interrupts.count:
                    time.sleep(POLL_S)
        return False

    def _still_there(
        self, submission: Submission, array: ArrayRecord, job: str | None, task: int | None = None
    ) -> str | None:
        """Say why an array, or a task of it, that nobody lists may be there all the same.

        An array is asked for once a look; what is certain is remembered.
        """
        name = array.tag if task is None else f"{array.tag}/{task}"
        if {array.tag, name} & {*self.queue.absent}:
            return None
        if array.tag not in self._there:
            self._there[array.tag] = tasks_there(submission.origin, array, job)
        there = self._there[array.tag]
        if isinstance(there, str):
            return there
        if there and (task is None or task in there):
            return "is in no list, and scontrol still has it"
        gone = name if there else array.tag
        self.queue = self.queue.model_copy(update={"absent": [*self.queue.absent, gone]})
        return None

    def _job_folder(self, submission: Submission) -> SubmissionFolder:
        """Absolute: jobs start elsewhere than here."""
        return SubmissionFolder(self.folder.absolute() / submission.token)

    def _code(self, submission: Submission, number: int) -> Path | None:
        code = submission.code(number)
        return snapshot(self.folder.absolute(), code) if code else None

    def _share(self, submission: Submission, array: ArrayRecord) -> int | None:
        """How many tasks of an array may run at a time: max_parallel counts for a pool, whose runs may need several."""
        if self.max_parallel is None:
            return None
        pieces = sum(other.pool == array.pool for other in submission.arrays)
        return max(1, self.max_parallel // pieces)

    def _may_say_more(self, array: ArrayRecord, submitter_alive: bool | None, done: Collection[str]) -> bool:
        """Tell whether Slurm may have more to say: some run is not done, and not every job's end is known."""
        if array.asked is None or settled(array, self.queue):
            return False
        certain = array.refused is not None or array.tag in self.queue.absent
        if certain and settle(array, submitter_alive, self.queue, now()).standing is Standing.REFUSED:
            return False
        return not all(run_id in done for task in array.tasks for run_id in task)

    def _outdated(self, arrays: Sequence[ArrayRecord], max_age_s: float) -> bool:
        asked = self.queue.squeue.asked
        newest = max(array.asked for array in arrays if array.asked)
        return asked is None or asked < newest or now() - asked > timedelta(seconds=max_age_s)

    def _jobs(
        self, submission: Submission, number: int, submitter_alive: bool | None, done: Collection[str]
    ) -> Iterator[Job]:
        array = submission.arrays[number]
        folder = SubmissionFolder(self.folder / submission.token)
        logs = folder.array(number)
        hidden, queue = unseen(submission.origin), self.queue
        if hidden and submission.origin:
            queue = self.others.get(submission.origin.uid, Snapshot())
        rows = queue.tasks.get(array.tag, {})
        its_array = array.job or next((row.job.partition("_")[0] for row in rows.values()), None)
        found = settle(array, submitter_alive, queue, now())
        if hidden and found.standing is Standing.REFUSED and array.refused is None:
            found = Settled(Standing.UNCONFIRMED, hidden)
        elif found.standing is Standing.REFUSED and array.refused is None and array.asked is not None:
            words = self._still_there(submission, array, its_array)
            found = Settled(Standing.UNCONFIRMED, words) if words else found
        if found.standing is Standing.REFUSED or folder.withdrawn(number).exists():
            return
        confirmed = found.standing is Standing.ACCEPTED
        for task, runs in enumerate(array.tasks):
            if all(run_id in done for run_id in runs):
                continue
            seen = JobView(Phase.UNKNOWN, message=f"{array.tag} is not confirmed: {found.words}", problem=hidden)
            if confirmed and hidden:
                seen = last_known(array, task, queue, lambda row: _tail(log_path(logs, row.job)), hidden)
            elif confirmed:
                seen = view(array, task, self.queue, lambda row: _tail(log_path(logs, row.job)))
                doubt = self._still_there(submission, array, its_array, task) if seen.gone else None
                if doubt:
                    seen = seen._replace(phase=Phase.UNKNOWN, gone=False, cancelled=False, message=doubt, problem=doubt)
            log = log_path(logs, seen.id) if seen.id else None
            yield Job(
                executor=self.name,
                submission=submission.token,
                runs=runs,
                view=seen._replace(log=str(log) if log and log.exists() else None),
                confirmed=confirmed,
                id=f"{its_array}_{task}" if its_array else None,
                name=array.tag,
                siblings=len(array.tasks),
                pool=array.pool,
                resources=array.resources,
                owner=owner(submission.origin),
            )


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
