"""The executor that sends job arrays to Slurm, and tells of them what Slurm has said.

The intent is on disk before sbatch is called, so an array that Slurm gave no clear answer about is found by its tag.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from slurm.acceptance import Standing, settle
from slurm.commands import Refused, Unclear
from slurm.executor import Keep, Place, Started
from slurm.jobs import ArrayRecord, JobView, Phase, Snapshot, Submission, SubmissionFolder
from slurm.submission import cancel, log_path, script, send, unusable_folder
from slurm.view import view
from trainer.records.base import now

LOG_TAIL = 20_000  # bytes of a job's output that are searched for how it ended


class Slurm:
    """Job arrays. snapshot: what Slurm has said of them; max_parallel: jobs of a pool at a time."""

    name = "slurm"
    look_again_s = 15.0  # the scheduler is everyone's

    def __init__(self, snapshot: Snapshot | None = None, max_parallel: int | None = None) -> None:
        self.snapshot = snapshot or Snapshot()
        self.max_parallel = max_parallel

    def unusable(self, folder: Path) -> str | None:
        return unusable_folder(folder.absolute())

    def scripts(self, submission: Submission, folder: SubmissionFolder) -> list[str]:
        place = SubmissionFolder(folder.path.absolute())
        return [
            script(array, place.array(number), place.bundle(number), max_parallel=self._share(submission, array.pool))
            for number, array in enumerate(submission.arrays)
        ]

    def start(self, submission: Submission, folder: SubmissionFolder, keep: Keep) -> Started:
        """Send the arrays, one sbatch each. After an unclear answer nothing more is sent: the next look finds out."""
        place = SubmissionFolder(folder.path.absolute())
        arrays = list(submission.arrays)
        problems: list[str] = []
        unclear = False

        def note(number: int, **changes: object) -> None:
            nonlocal submission
            arrays[number] = arrays[number].model_copy(update=changes)
            submission = submission.model_copy(update={"arrays": list(arrays)})
            keep(submission)

        for number, array in enumerate(submission.arrays):
            runs = sum(map(len, array.tasks))
            if unclear:
                note(number, refused="not sent, for Slurm gave no clear answer to the one before")
                continue
            note(number, asked=now())
            share = self._share(submission, array.pool)
            try:
                note(number, job=send(array, place.array(number), place.bundle(number), max_parallel=share))
            except Refused as error:
                note(number, refused=str(error))
                problems.append(f"pool '{array.pool}': Slurm refused {runs} runs: {error}")
            except Unclear as error:
                unclear = True
                problems.append(f"pool '{array.pool}': Slurm gave no clear answer about {runs} runs: {error}")
        return Started(submission, problems, unclear)

    def look(self, place: Place, folder: SubmissionFolder) -> JobView | None:
        array = place.array
        if array is None or folder.withdrawn(place.number).exists():
            return None
        settled = settle(array, place.submitting, self.snapshot, now())
        if settled.standing is Standing.REFUSED:
            return None
        if settled.standing is Standing.UNCONFIRMED:
            words = f"{array.tag} is not confirmed: {settled.words}"
            return JobView(Phase.UNKNOWN, message=words, unconfirmed=True)
        logs = folder.array(place.number)
        seen = view(array, place.task, self.snapshot, lambda row: _tail(log_path(logs, row.job)))
        log = log_path(logs, seen.id) if seen.id else None
        return seen._replace(log=str(log) if log and log.exists() else None)

    def cancel(self, places: Sequence[Place], wanted: Collection[str]) -> int:
        tasks: dict[str, set[int]] = {}
        whole: dict[str, int] = {}
        for place in places:
            array = place.array
            job = self._job(array, place.task) if array else None
            if array and job and not set(wanted).intersection(place.runs):
                tasks.setdefault(job, set()).add(place.task)
                whole[job] = len(array.tasks)
        jobs = []
        for job, numbers in tasks.items():
            jobs += [job] if len(numbers) == whole[job] else [f"{job}_{number}" for number in sorted(numbers)]
        cancel(jobs)
        return sum(map(len, tasks.values()))

    def alive(self, submission: Submission) -> bool | None:
        return None

    def see_to(self, submission: Submission, folder: SubmissionFolder, keep: Keep) -> list[str]:
        return []

    def stop(self, submission: Submission) -> bool:
        return False

    def kill(self, submission: Submission) -> None:
        """Jobs are ended by `sweep cancel` alone."""

    def _share(self, submission: Submission, pool: str) -> int | None:
        """max_parallel counts for a pool, also where its runs are in several arrays."""
        pieces = sum(array.pool == pool for array in submission.arrays)
        return max(1, self.max_parallel // pieces) if self.max_parallel else None

    def _job(self, array: ArrayRecord, task: int) -> str | None:
        row = self.snapshot.tasks.get(array.tag, {}).get(task)
        return array.job or (row.job.partition("_")[0] if row else None)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
