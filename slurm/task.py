"""`python -m slurm.task BUNDLE`, on the compute node: execute one array task's runs, and go on when Slurm interrupts.

This process trains nothing. It starts the trainers, passes signals on, says how one that was killed ended, and hands
the job back to the queue when the time limit comes before the last run is done. Its exit code is what Slurm records.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from slurm.commands import SlurmError, call
from slurm.cores import core_shares, on_cores, usable_cores
from slurm.jobs import WITHDRAWN
from slurm.limits import parse_minutes
from slurm.mps import multi_process_service
from slurm.rivals import cancel_waiting
from slurm.timeouts import NEAR_LIMIT_MIN
from slurm.workers import Ended, Workers, read_attempt
from trainer.records.attempt import AttemptRecord, Cause, ExitCode
from trainer.records.checkpoint_file import epochs_in, list_checkpoints
from trainer.records.code import module_command, own_snapshot
from trainer.records.files import RecordError, read_json, write_json
from trainer.records.process import job_name, restarts
from trainer.records.run import Bundle, RunFolder

POLL_S = 0.2


class Task:
    """One array task: its runs, and the trainers at work on them."""

    def __init__(self, bundle_file: Path, bundle: Bundle, index: int) -> None:
        self.bundle_file = bundle_file
        self.bundle = bundle
        self.index = index
        self.workers = Workers(bundle, index)
        self.abreast = min(bundle.workers, len(self.workers.runs))
        self.free_cores = core_shares(usable_cores(), self.abreast, bundle.options.threads)
        self.cores: dict[int, set[int]] = {}  # by the pid of the worker that has them
        self.environment = dict(os.environ)
        self.signal: signal.Signals | None = None
        self.failed = False

    def run(self) -> int:
        """Work until the runs are done or a signal ends it; give the exit code."""
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)
        shared = self.bundle.mps and self.abreast > 1
        with multi_process_service() if shared else nullcontext(self.environment) as self.environment:
            self._work()
        if self.signal and self.workers.unfinished(in_next_life=True):
            self._go_on_later()
        if self.signal:
            return int(ExitCode.INTERRUPTED)
        return int(ExitCode.FAILED if self.failed else ExitCode.DONE)

    def _work(self) -> None:
        """Start the trainers, and stay until the last has ended."""
        for _ in range(self.abreast):
            self._start()
        passed_on = False
        alone = not self.bundle.rivals
        while self.workers.running:
            if not alone and self.workers.have_begun():
                alone = True
                cancel_waiting(self.bundle.rivals, self.index, spared=self.workers.may_go_on())
            if self.signal and not passed_on:
                passed_on = True
                self.workers.tell(self.signal)
            self.workers.end_stuck()
            for ended in self.workers.ended():
                self._see_to(ended)
            time.sleep(POLL_S)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # A warning counts however late: what ends a job for another's sake may overtake it (preempt_send_user_signal).
        if self.signal is None or number == signal.SIGUSR2:
            self.signal = signal.Signals(number)

    def _start(self) -> None:
        command = module_command("trainer", own_snapshot())
        command += ["--bundle", str(self.bundle_file), "--task", str(self.index)]
        cores = self.free_cores.pop(0) if self.free_cores else None
        with on_cores(cores):
            worker = subprocess.Popen([*command, "--job", job_name()], stdin=subprocess.DEVNULL, env=self.environment)
        if cores:
            self.cores[worker.pid] = cores
        self.workers.running.append(worker)

    def _see_to(self, ended: Ended) -> None:
        """Take notice of a trainer's end; after one that was killed another takes what is left."""
        if ended.worker.pid in self.cores:
            self.free_cores.append(self.cores.pop(ended.worker.pid))
        if ended.code not in (ExitCode.DONE.value, ExitCode.INTERRUPTED.value):
            self.failed = True
        if ended.words is None:
            return
        for run_id in ended.held:
            print(f"{run_id}: {ended.words}", flush=True)
        if not ended.took:  # another would fare no better
            print(f"a trainer was {ended.words} before it took a run", flush=True)
        elif self.workers.unfinished() and not self.signal:
            self._start()

    def _go_on_later(self) -> None:
        """Put this job back into the queue, to go on from the checkpoints, if the signal leaves it a future.

        That is so after the warning before its time limit and in a preemption's grace: a job that ends itself there
        counts as failed, and Slurm does not requeue it (22.05). One that was cancelled, or has reached its limit, is no
        longer running when it is told.
        """
        state, left_min = self._standing()
        if self.signal is not signal.SIGUSR2 and state != "RUNNING":
            return
        if left_min is not None and left_min <= NEAR_LIMIT_MIN:
            self._give_up_stuck()
        if not self.workers.unfinished(in_next_life=True):
            return
        try:
            call(["scontrol", "requeue", job_name()])
            print("the time limit is near, or another job goes first: back into the queue", flush=True)
        except SlurmError as error:
            words = f"its job could not go back into the queue ({error}); 'sweep submit' continues it"
            print(words, flush=True)
            self._note(words)

    def _note(self, words: str) -> None:
        """Have the runs that this job leaves unfinished say so themselves."""
        for _, record in self.workers.newest_attempts():
            if record.job == job_name() and record.outcome == "interrupted":
                message = f"{record.message}; {words}" if record.message else words
                path = self.workers.folder(record.run_id).attempt(record.number)
                write_json(path, record.model_copy(update={"message": message}))

    def _standing(self) -> tuple[str | None, int | None]:
        """Ask Slurm for this job's state and the minutes it has left; None for what it does not say."""
        try:
            answer = call(["squeue", "--noheader", "--jobs", job_name(), "--format", "%T|%L"])
            state, _, left = answer.strip().partition("|")
            return state, parse_minutes(left)
        except (SlurmError, ValueError):
            return None, None

    def _give_up_stuck(self) -> None:
        """Close the runs that all the time there is brings no further: they would come back for ever."""
        for run_id, record in self.workers.newest_attempts():
            folder = self.workers.folder(run_id)
            if self._made_nothing_twice(folder, record):
                words = "its time limit came twice before a checkpoint; give it more time with 'sweep retry'"
                changes = {"outcome": "failed", "cause": Cause.TIMEOUT, "message": words}
                write_json(folder.attempt(record.number), record.model_copy(update=changes))
                print(f"{run_id}: {words}", flush=True)

    def _made_nothing_twice(self, folder: RunFolder, record: AttemptRecord) -> bool:
        """Tell whether this job and its former self both ended without a checkpoint to go on from."""
        if record.submission != self.bundle.submission or record.restarts == 0 or record.number == 1:
            return False
        before = read_attempt(folder, record.number - 1)
        if before is None or before.job != record.job or before.start_epoch != record.start_epoch:
            return False
        saved = list_checkpoints(folder.checkpoints)
        return not saved or epochs_in(saved[0]) <= record.start_epoch


def main(arguments: Sequence[str]) -> int:
    """Execute the task that Slurm's environment names."""
    bundle_file = Path(arguments[0])
    try:
        bundle = read_json(bundle_file, Bundle)
    except RecordError as error:
        print(f"slurm.task: {error}", flush=True)
        return ExitCode.USAGE.value
    if bundle is None:
        print(f"slurm.task: {bundle_file}: no such file, seen from {os.uname().nodename}", flush=True)
        return ExitCode.USAGE.value
    if (bundle_file.parent / WITHDRAWN).exists():
        print("this array was given up before it began; its runs are in another", flush=True)
        return ExitCode.DONE.value
    index = os.environ.get("SLURM_ARRAY_TASK_ID", "0" if len(bundle.tasks) == 1 else None)
    if index is None:
        print("slurm.task: SLURM_ARRAY_TASK_ID is not set, which says what there is to do here", flush=True)
        return ExitCode.USAGE.value
    if restarts():
        print(f"started anew by Slurm, {restarts()} times now", flush=True)
    return Task(bundle_file, bundle, int(index)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
