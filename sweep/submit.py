"""Start the runs that are to be executed: first the intent on disk, then the jobs, then the wait for them.

Exactly once is not this module's to promise: every job claims a run before it trains it, so two submissions at the
same moment share the work. Here it is only avoided to ask for what is already on its way.
"""

import contextlib
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from slurm.executor import JobRecord
from slurm.local import LocalExecutor
from sweep.config import Sweep
from sweep.errors import MachineError
from sweep.plan import PlanRow, plan_record
from sweep.status import RunStatus, State
from sweep.store import Submission, SweepFolder
from sweep.survey import survey
from trainer.files import write_json
from trainer.processes import is_alive
from trainer.records import Bundle, Commitment, ExitCode, Options, now

POLL_S = 0.5
POLL_SHARE = 20  # looking takes at most a twentieth of a core from the workers, however many runs there are
IN_GOOD_ORDER = (ExitCode.DONE.value, ExitCode.INTERRUPTED.value)
STOP_S = 60.0  # a step of the largest network on a slow core, and a checkpoint on a slow disk


class Submitted(NamedTuple):
    """A submission whose workers run."""

    record: Submission
    bundle: Path


def start(sweep: Sweep, rows: Sequence[PlanRow], executor: LocalExecutor, workers: int, *, threads: int) -> Submitted:
    """Write the intent and start the workers, each computing with so many threads.

    Longest runs go first, so that the last worker to finish finishes early. A cancelled run that is submitted again is
    no longer cancelled; files of another recipe or dataset are set aside whole. Raises MachineError when the disk or a
    process fails.
    """
    folder = SweepFolder(sweep.folder)
    token = f"{now():%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    try:
        bundle_folder = folder.submissions / token
        bundle_folder.mkdir(parents=True)
        folder.runs.mkdir(exist_ok=True)
        write_json(folder.plan, plan_record(sweep))
        record = Submission(token=token, created=now(), executor=executor.name, runs=[row.id for row in rows], jobs=[])
        write_json(folder.submission(token), record)
        for row in rows:
            _make_room(folder, sweep, row)
        bundle = bundle_folder / "bundle.json"
        write_json(bundle, _bundle(sweep, folder, token, rows, threads))
        record = record.model_copy(update={"jobs": list(executor.start(bundle, workers))})
        write_json(folder.submission(token), record)
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the submission could not be written: {error}") from error
    return Submitted(record, bundle)


@dataclass
class Wait:
    """Watch a submission until its workers have ended, by themselves or because Ctrl-C asked them to.

    show draws the states, report prints a line. A worker that was killed is replaced while runs wait: the run it held
    is left interrupted and no worker of this submission touches it again, so this ends.
    """

    sweep: Sweep
    submitted: Submitted
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
                    self.report("stopping: the workers finish their step; Ctrl-C again ends them at once")
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

    def _any_alive(self) -> bool:
        return any(self.executor.alive(job) for job in self.submitted.record.jobs)

    def _each_job(self, act: Callable[[JobRecord], None]) -> None:
        for job in self.submitted.record.jobs:
            act(job)

    def _see_to_ended(self, statuses: Sequence[RunStatus]) -> None:
        """Report each worker that did not end in good order, and replace those that were killed in the middle."""
        record = self.submitted.record
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
                log = self.executor.log(self.submitted.bundle, job)
                self.report(f"worker {job.id} ended with exit code {code}; see {log}")

    def _start_another(self) -> None:
        record = self.submitted.record
        jobs = [*record.jobs, *self.executor.start(self.submitted.bundle, 1)]
        record = record.model_copy(update={"jobs": jobs})
        write_json(SweepFolder(self.sweep.folder).submission(record.token), record)
        self.submitted = self.submitted._replace(record=record)


def _bundle(sweep: Sweep, folder: SweepFolder, token: str, rows: Sequence[PlanRow], threads: int) -> Bundle:
    execution = sweep.execution
    ordered = sorted(rows, key=lambda row: -row.remaining_s)
    return Bundle(
        submission=token,
        pool="local",
        data=sweep.data.resolve(),
        runs_folder=folder.runs.resolve(),
        options=Options(
            device=execution.device,
            threads=threads,
            checkpoint_interval_s=execution.checkpoint_interval_s,
        ),
        runs=[row.placed.cell.spec for row in ordered],
    )


def _make_room(folder: SweepFolder, sweep: Sweep, row: PlanRow) -> None:
    """Clear a run's folder of what would keep it from running: a cancel request, files of other work."""
    run_folder = folder.run(row.id)
    run_folder.cancel.unlink(missing_ok=True)
    evidence = folder.read_evidence([row.id])[row.id]
    if evidence.attempt and evidence.attempt.outcome is None and is_alive(evidence.attempt.process) is not False:
        return  # begun by someone else since the plan was made
    spec = row.placed.cell.spec
    fingerprint = sweep.fingerprints.get(spec.run.dataset, "")
    wanted = Commitment(run=spec.run, training=spec.training, data_fingerprint=fingerprint)
    other = evidence.commitment is not None and evidence.commitment != wanted
    if evidence.result is not None or evidence.problems or other:
        folder.set_aside(row.id)


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
