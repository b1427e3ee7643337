"""Wait for a submission: watch its runs, see to local workers that end, pass Ctrl-C on."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from slurm.jobs import WorkerRecord
from slurm.local import LocalExecutor
from sweep.config.schema import Sweep
from sweep.status.folder import Submission, SweepFolder
from sweep.status.look import look, survey
from sweep.status.state import ON_ITS_WAY, RunStatus, State
from trainer.records.attempt import ExitCode
from trainer.records.files import write_json

POLL_S = 0.5
POLL_SHARE = 20  # looking takes at most a twentieth of a core from the workers, however many runs there are
SLURM_POLL_S = 15.0  # the scheduler is everyone's
IN_GOOD_ORDER = (ExitCode.DONE.value, ExitCode.INTERRUPTED.value)
STOP_S = 60.0  # what is left of a short epoch, and a checkpoint on a slow disk


def until_jobs_ended(sweep: Sweep, record: Submission, show: Callable[[Sequence[RunStatus]], None]) -> bool:
    """Wait until no run of a submission to Slurm is queued or running. Ctrl-C ends the waiting only: False."""
    with _interrupts() as interrupts:
        while not interrupts.count:
            statuses = look(sweep, max_age_s=SLURM_POLL_S - POLL_S).statuses
            show(statuses)
            if not any(status.state in ON_ITS_WAY for status in statuses if status.id in record.runs):
                return True
            deadline = time.monotonic() + SLURM_POLL_S
            while time.monotonic() < deadline and not interrupts.count:
                time.sleep(POLL_S)
    return False


@dataclass
class LocalWait:
    """Watch a submission until its workers have ended, by themselves or because Ctrl-C asked them to.

    show draws the states, report prints a line. A worker that was killed is replaced while runs wait: the run it held
    is left interrupted and no worker of this submission touches it again, so this ends.
    """

    sweep: Sweep
    record: Submission
    executor: LocalExecutor
    show: Callable[[Sequence[RunStatus]], None]
    report: Callable[[str], None]
    seen_to: set[str] = field(default_factory=set)

    def until_ended(self) -> bool:
        """Wait; tell whether the submission was left to end by itself. A second Ctrl-C kills the workers."""
        asked_at: float | None = None
        with _interrupts() as interrupts:
            while True:
                looked_at = time.monotonic()
                statuses = survey(self.sweep, self.executor)
                self.show(statuses)
                if interrupts.count and asked_at is None:
                    asked_at = time.monotonic()
                    self.report("stopping: the workers save and end, within seconds; Ctrl-C again ends them at once")
                    self._each_job(self.executor.stop)
                if asked_at is not None and (interrupts.count > 1 or time.monotonic() - asked_at > STOP_S):
                    self._each_job(self.executor.kill)
                ended = not self._any_alive()
                if ended:  # the last may have ended after the look
                    statuses = survey(self.sweep, self.executor)
                    self.show(statuses)
                if asked_at is None:
                    self._see_to_ended(statuses)
                if ended and not self._any_alive():
                    return asked_at is None
                time.sleep(max(POLL_S, POLL_SHARE * (time.monotonic() - looked_at)))

    @property
    def _bundle(self) -> Path:
        return SweepFolder(self.sweep.folder).bundle(self.record.token)

    def _any_alive(self) -> bool:
        return any(self.executor.alive(job) for job in self.record.jobs)

    def _each_job(self, act: Callable[[WorkerRecord], None]) -> None:
        for job in self.record.jobs:
            act(job)

    def _see_to_ended(self, statuses: Sequence[RunStatus]) -> None:
        """Report each worker that did not end in good order, and replace those that were killed in the middle."""
        record = self.record
        mine = [status for status in statuses if status.id in record.runs]
        for job in record.jobs:
            code = self.executor.exit_code(job)
            if job.id in self.seen_to or code is None:
                continue
            self.seen_to.add(job.id)
            trained = [status for status in mine if status.job == job.id]
            if code < 0:
                # Running: the worker was killed after its run was looked at.
                held = [status.id for status in trained if status.state in (State.INTERRUPTED, State.RUNNING)]
                self.report(f"worker {job.id} was killed" + (f" while it trained {held[0]}" if held else ""))
                if held and any(status.state in (State.QUEUED, State.PLANNED) for status in mine):
                    self._start_another()
            elif code not in IN_GOOD_ORDER and not any(status.state is State.FAILED for status in trained):
                log = self.executor.log(self._bundle, job)
                self.report(f"worker {job.id} ended with exit code {code}; see {log}")

    def _start_another(self) -> None:
        record = self.record
        jobs = [*record.jobs, *self.executor.start(self._bundle, 1)]
        record = record.model_copy(update={"jobs": jobs})
        write_json(SweepFolder(self.sweep.folder).submission(record.token), record)
        self.record = record


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
