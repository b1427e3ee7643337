"""Wait for a submission: watch its runs, have the executor see to its jobs, pass Ctrl-C on."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from slurm.executor import Executor
from slurm.jobs import Submission
from sweep.config.schema import Sweep
from sweep.status.folder import SweepFolder
from sweep.status.look import look
from sweep.status.state import ON_ITS_WAY, RunStatus
from trainer.records.files import write_json

POLL_S = 0.5
POLL_SHARE = 20  # looking takes at most a twentieth of a core from the workers, however many runs there are
STOP_S = 60.0  # what is left of a short epoch, and a checkpoint on a slow disk


def until_ended(
    sweep: Sweep,
    submission: Submission,
    executor: Executor,
    show: Callable[[Sequence[RunStatus]], None],
    report: Callable[[str], None],
) -> bool:
    """Wait until a submission's jobs have ended; tell whether it was left to end by itself.

    show draws the states, report prints a line. Ctrl-C asks the jobs to save and end, a second one ends them at once;
    jobs that go on without the one who waits are left to that.
    """
    folder = SweepFolder(sweep.folder)
    jobs = folder.jobs(submission.token)
    asked_at: float | None = None

    def keep(changed: Submission) -> None:
        nonlocal submission
        submission = changed
        write_json(folder.submission(changed.token), changed)

    def look_again() -> Sequence[RunStatus]:
        statuses = look(sweep, executor, max_age_s=max(0.0, executor.look_again_s - POLL_S)).statuses
        show(statuses)
        return statuses

    with _interrupts() as interrupts:
        while True:
            looked_at = time.monotonic()
            statuses = look_again()
            if interrupts.count and asked_at is None:
                asked_at = time.monotonic()
                if not executor.stop(submission):
                    return False
                report("stopping: the workers save and end, within seconds; Ctrl-C again ends them at once")
            if asked_at is not None and (interrupts.count > 1 or time.monotonic() - asked_at > STOP_S):
                executor.kill(submission)
            ended = _ended(executor, submission, statuses)
            if ended:  # the last may have ended after the look
                statuses = look_again()
            if asked_at is None:
                for line in executor.see_to(submission, jobs, keep):
                    report(line)
            if ended and _ended(executor, submission, statuses):
                return asked_at is None
            pause_s = max(executor.look_again_s, POLL_SHARE * (time.monotonic() - looked_at))
            _pause(pause_s, interrupts)


def _ended(executor: Executor, submission: Submission, statuses: Sequence[RunStatus]) -> bool:
    alive = executor.alive(submission)
    if alive is not None:
        return not alive
    return not any(status.state in ON_ITS_WAY for status in statuses if status.id in submission.runs)


def _pause(seconds: float, interrupts: "_Interrupts") -> None:
    """Sleep, but for Ctrl-C."""
    deadline, before = time.monotonic() + seconds, interrupts.count
    while interrupts.count == before and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left))


class _Interrupts:
    """Counts Ctrl-C."""

    count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


@contextlib.contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    """Count SIGINT and SIGTERM instead of dying of them."""
    counter = _Interrupts()
    previous = {number: signal.signal(number, counter) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counter
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
