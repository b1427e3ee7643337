"""The one face of what executes runs: Slurm's job arrays, or worker processes on this machine.

What one of them cannot do is an empty answer of it, so that no caller asks which it has.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from slurm.jobs import ArrayRecord, JobView, Submission, SubmissionFolder

Keep = Callable[[Submission], None]  # writes a submission anew, with what has become of it


class Place(NamedTuple):
    """Where a submission put a run: in which of its arrays, and in which task of that.

    submitting: whether the submission's process was still at it; None when it is on another host.
    """

    submission: Submission
    submitting: bool | None
    number: int = 0
    task: int = 0

    @property
    def runs(self) -> list[str]:
        """The runs that share its task."""
        return self.submission.tasks[self.number][self.task]

    @property
    def array(self) -> ArrayRecord | None:
        """What was asked of Slurm; None of local workers."""
        return self.submission.arrays[self.number] if self.submission.arrays else None


class Started(NamedTuple):
    """What became of a submission: its jobs, and a sentence for each array that Slurm did not take.

    unclear: whether it may have taken one all the same.
    """

    submission: Submission
    problems: list[str]
    unclear: bool = False


class Executor(Protocol):
    """Starts the jobs of a submission whose intent and bundles are on disk, and tells how they stand."""

    name: str
    look_again_s: float  # how long one who waits leaves it in peace

    def unusable(self, folder: Path) -> str | None:
        """Say why no job could work under a folder."""

    def scripts(self, submission: Submission, folder: SubmissionFolder) -> list[str]:
        """What `start` would have executed, word for word."""

    def start(self, submission: Submission, folder: SubmissionFolder, keep: Keep) -> Started:
        """Start the jobs. Raises OSError."""

    def look(self, place: Place, folder: SubmissionFolder) -> JobView | None:
        """What is known of a run's job; None if it never had one, or has none any more."""

    def cancel(self, places: Sequence[Place], wanted: Collection[str]) -> int:
        """End the jobs of these places that carry no wanted run; count them. Raises SlurmError."""

    def alive(self, submission: Submission) -> bool | None:
        """Tell whether any job lives; None where only the runs' states tell."""

    def see_to(self, submission: Submission, folder: SubmissionFolder, keep: Keep) -> list[str]:
        """Replace workers that were killed while runs wait; say what has ended and how."""

    def stop(self, submission: Submission) -> bool:
        """Ask the jobs to save and end; False where they go on without the one who waits."""

    def kill(self, submission: Submission) -> None:
        """End the jobs at once; their runs go on from their checkpoints another time."""
