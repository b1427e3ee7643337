"""What starts, watches and stops jobs: one face for a cluster and for this machine.

An executor knows submissions, their bundles and their jobs; it knows no sweep, no plan and no run's state. What one of
the two cannot do is an empty answer, so nobody who calls one asks which it is.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from slurm.jobs import JobView, Phase, Resources, Submission
from slurm.pools import LOCAL

Keep = Callable[[Submission], None]  # writes a submission anew, with what has become of it
Look = Callable[[], bool]  # look at the submission's runs, show them, and tell whether one is queued or running
Report = Callable[[str], None]  # say a line to whoever waits


class Job(NamedTuple):
    """A job as its executor sees it; the local workers of a submission, which share its runs, count as one.

    confirmed: False while nobody knows whether Slurm has it. id and name: what it is cancelled by, None where the
    request that its trainers look for is enough; siblings: how many jobs its array has. resources: what it asked for,
    None where it takes what there is. owner: the other user whose job it is, None for one's own.
    """

    executor: str
    submission: str
    runs: Sequence[str]
    view: JobView
    confirmed: bool = True
    id: str | None = None
    name: str | None = None
    siblings: int = 1
    pool: str = LOCAL
    resources: Resources | None = None
    owner: str | None = None

    @property
    def is_anothers(self) -> bool:
        """Whether another user's job may do its runs yet: that user alone ends it, or knows that it has ended."""
        return self.owner is not None and (self.view.phase is not Phase.ENDED or self.view.problem is not None)


class Started(NamedTuple):
    """What became of a submission: its jobs, and a sentence for each array that Slurm did not take.

    unclear: whether it may have taken one all the same.
    """

    submission: Submission
    problems: Sequence[str] = ()
    unclear: bool = False


class Executor(Protocol):
    """Where jobs run. The folder of an executor is the one that holds the submissions."""

    name: str
    notes: Sequence[str]  # of the last look, for the user: jobs here that are another sweep's, or another user's

    def unusable(self) -> str | None:
        """Say why jobs could not write into the folder; None if they can."""

    def scripts(self, submission: Submission) -> list[str]:
        """Write what `start` would start, as a shell would: a job script an array, or a command a worker."""

    def start(self, submission: Submission, keep: Keep) -> Started:
        """Start the jobs of a submission whose record and bundles are on disk. Raises OSError."""

    def look(
        self,
        submissions: Sequence[Submission],
        submitting: Mapping[str, bool | None],
        done: Collection[str],
        *,
        max_age_s: float,
    ) -> list[Job]:
        """List the jobs of this executor's submissions, oldest first, that carry a run which is not done.

        submitting: by token, whether the process that submits is still at it, None if it is on another host. Left out
        is what was never started, or was given up. What is known is asked anew when it is older than max_age_s.
        """

    def cancel(self, jobs: Sequence[Job]) -> int:
        """Cancel jobs that carry no wanted run, so that none waits for nothing; their number. Raises SlurmError."""

    def wait(self, look: Look, report: Report) -> bool:
        """Wait for the jobs just started; False if Ctrl-C ended it before they had ended by themselves."""
