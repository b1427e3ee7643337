"""One attempt under way: what it writes while it trains, when it saves, and how it says that it ended.

Owns the order of writes: commitment, progress as it goes, checkpoints, and last the result or the error.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from trainer.checkpoint.tensors import newest_good
from trainer.checkpoint.writer import CheckpointWriter
from trainer.data.prepared import PreparedDataset
from trainer.distributed.leader import Crew
from trainer.loop.build import make_trainer
from trainer.loop.device import gpu_names
from trainer.loop.environment import cpu_name
from trainer.loop.group import Alone, LostError, agreed
from trainer.loop.trainer import DivergedError, StateError, Trainer
from trainer.records.attempt import Cause, ExitCode, Outcome
from trainer.records.base import now
from trainer.records.checkpoint_file import CheckpointError, CheckpointInfo, remove_needless
from trainer.records.claim import HEARTBEAT_S, Claim
from trainer.records.files import Reserve, clear_unfinished, patiently, write_json
from trainer.records.result import Stretch
from trainer.records.run import Commitment, Options, RunFolder, RunSpec
from trainer.records.status import Progress
from trainer.run.failure import record_failure
from trainer.run.result import extend, make_result, write_result
from trainer.stop import Cancelled, ClaimLost, Interrupted, Stopped, StopSignal

log = logging.getLogger("trainer")


DEFAULT_THREADS = torch.get_num_threads()  # torch's own choice, before any run changes it


FINISH_S = 10.0  # what a signal's sender leaves of its patience (Slurm 30 s) for an epoch that is nearly through


WAIT_S = 0.5  # between looks around while a write is waited for


@dataclass
class OneAttempt:
    """The state of one attempt while it lasts."""

    commitment: Commitment
    folder: RunFolder
    claim: Claim
    dataset: PreparedDataset
    kept: npt.NDArray[np.int64]
    device: torch.device
    pool: str
    options: Options
    stop: StopSignal
    crew: Crew | None = None
    notes: list[str] = field(default_factory=list)
    trainer: Trainer | None = None
    writer: CheckpointWriter | None = None
    reserve: Reserve | None = None
    stretches: list[Stretch] = field(default_factory=list)
    threads: int = 0  # the run began with
    last_heartbeat: float = -math.inf
    last_save: float = -math.inf
    epoch_began: float = math.inf

    @property
    def epoch(self) -> int:
        return self.trainer.epoch if self.trainer else 0

    def run(self) -> ExitCode:
        """Train to the end, or to whatever ends it, and record which it was."""
        try:
            try:
                self._train()
            except BaseException as error:
                self._end_writer()
                self._part(error)
                raise
        except ClaimLost as reason:
            return self._lost(reason)
        except Interrupted as reason:
            log.warning("%s %s after %d epochs; the next call continues", self._id, reason, self.epoch)
            return self._close(ExitCode.INTERRUPTED, "interrupted", Cause.KILLED, str(reason))
        except Cancelled as reason:
            log.warning("%s cancelled after %d epochs", self._id, self.epoch)
            return self._close(ExitCode.INTERRUPTED, "cancelled", None, str(reason))
        except Exception as error:  # whatever ends a run is recorded; nothing is swallowed
            # Unnamed, or this frame would hold the error whose traceback holds the frame: a cycle around the trainer,
            # which kept the GPU's memory from the next run.
            return self._last_word(ExitCode.FAILED, partial(record_failure, self.folder, self.claim, error, self.epoch))
        return self._close(ExitCode.DONE, "done", None, None)

    @property
    def _id(self) -> str:
        return self.commitment.run.id

    def _close(self, code: ExitCode, outcome: Outcome, cause: Cause | None, message: str | None) -> ExitCode:
        return self._last_word(code, lambda: self.claim.close(outcome, self.epoch, cause, message))

    def _last_word(self, code: ExitCode, write: Callable[[], None]) -> ExitCode:
        """Write how the attempt ended, in the room held for that; say so where even this cannot be written."""
        if self.reserve:
            self.reserve.release()
        try:
            write()
        except ClaimLost as reason:
            return self._lost(reason)
        except OSError as error:
            log.error("%s: how it ended could not be recorded: %s", self._id, error)
        return code

    def _lost(self, reason: ClaimLost) -> ExitCode:
        if self.reserve:
            self.reserve.release()
        log.error("%s; this process stops without writing", reason)
        return ExitCode.STOOD_BACK

    def _end_writer(self) -> None:
        """See the write in flight through: what it saves is work that need not be done again."""
        if self.writer:
            try:
                self.writer.close()
            except (OSError, ClaimLost) as error:
                log.error("%s: the last checkpoint was not written: %s", self._id, error)

    def _part(self, error: BaseException) -> None:
        """Let the run's other processes be where they wait for the next run, or end them wherever they are.

        Raises what is behind it where they could not be reached.
        """
        if self.crew is None or isinstance(error, Stopped | DivergedError):
            return
        reason = self.crew.explain(error) if isinstance(error, LostError) else None
        self.crew.abandon()
        if reason:
            raise reason from error

    def _train(self) -> None:
        recipe = self.commitment.training
        write_json(self.folder.commitment, self.commitment)
        patiently(lambda: self.folder.error.unlink(missing_ok=True))
        for folder in (self.folder.path, self.folder.attempts, self.folder.checkpoints):
            clear_unfinished(folder)
        self.reserve = Reserve(self.folder.path)
        trainer = self.trainer = self._set_up()
        self.claim.update(start_epoch=trainer.epoch, end_epoch=trainer.epoch)
        self._heartbeat(0, trainer.steps)
        self.last_save = time.monotonic()
        while trainer.epoch < recipe.epochs:
            self.epoch_began = time.monotonic()
            self._run_epoch(trainer)
            self._heartbeat(trainer.steps, trainer.steps)
            _log_epoch(trainer, recipe.epochs)
            if trainer.epoch < recipe.epochs:
                if self.stop.received or self._due(time.monotonic() - self.epoch_began):
                    self._save(trainer)
                self.stop.check()
        self._finish(trainer)

    def _run_epoch(self, trainer: Trainer) -> None:
        if self.crew is None:
            trainer.run_epoch(self._tick)
        else:
            self.crew.begin_epoch()
            trainer.run_epoch(agreed(self._tick, trainer.group, self.device))

    def _set_up(self) -> Trainer:
        """Put the run together as its newest good checkpoint has it, or as it begins."""
        run, recipe = self.commitment.run, self.commitment.training
        spec = RunSpec(run=run, training=recipe)
        if self.crew:
            self.crew.load(spec, self.dataset.folder.parent, self.device)
        trainer = make_trainer(spec, self.dataset, self.kept, self.device, self.crew.group if self.crew else Alone())
        found, passed_over = newest_good(self.folder.checkpoints, self.commitment)
        for reason in passed_over.values():
            self._note(f"checkpoint passed over: {reason}")
        self.threads = found.info.threads if found else self.options.threads or DEFAULT_THREADS
        if found:
            info = found.info
            try:
                trainer.restore(
                    found.tensors,
                    info.history,
                    train_seconds=info.train_seconds,
                    evaluation_seconds=info.evaluation_seconds,
                    scaler=info.scaler,
                )
            except StateError as error:
                reason = f"is of another {run.architecture} than this version's: {error}; move it away to start anew"
                raise CheckpointError(found.path, reason) from error
            self.stretches = info.stretches
        self._compute_on(trainer)
        if self.crew:
            self.crew.hand_over(trainer, torch.get_num_threads())
        self.writer = CheckpointWriter(
            self.folder.checkpoints, self.claim.check, saved=trainer.epoch, passed_over=passed_over
        )
        log.info(
            "%s attempt %d on %s, %s: %d training images, %d steps of %d × %d, from epoch %d of %d",
            run.id,
            self.claim.record.number,
            self._hardware(),
            trainer.precision,
            len(self.kept),
            trainer.steps,
            recipe.replicas,
            trainer.batch,
            trainer.epoch,
            recipe.epochs,
        )
        return trainer

    def _compute_on(self, trainer: Trainer) -> None:
        """Take the threads the run began with, fewer where there are fewer cores; note what computes from here on."""
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.threads
        torch.set_num_threads(max(1, min(self.threads, available) // trainer.group.size))
        here = Stretch(
            epoch=trainer.epoch,
            device=self._computes(trainer.group.size),
            precision=trainer.precision,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
        )
        before = self.stretches[-1] if self.stretches else here
        if not before.like(here):
            self._note(f"goes on on {here}, after {before}: the last bits may differ")
        self.stretches = extend(self.stretches, here)

    def _hardware(self) -> str:
        return str(self.device) if self.crew is None else f"{self.device.type} in {self.crew.group.size} processes"

    def _computes(self, processes: int) -> str:
        """Name what computes: one GPU a process, or the processor, which rounds otherwise in several processes."""
        shared = f" in {processes} processes" if processes > 1 else ""
        return ", ".join(gpu_names(self.device, processes)) or cpu_name() + shared

    def _note(self, words: str) -> None:
        """Say something in log and progress that the reader of the result should know."""
        self.notes.append(words)
        log.warning("%s", words)

    def _tick(self, step: int, steps: int) -> None:
        if self.stop.received and not self._worth_finishing():
            self.stop.check()
        self._look_around(step, steps)

    def _look_around(self, step: int, steps: int) -> None:
        if self.writer:
            self.writer.wait(0)
        if time.monotonic() - self.last_heartbeat >= HEARTBEAT_S:
            self._heartbeat(step, steps)

    def _worth_finishing(self) -> bool:
        """Tell whether to end the epoch in spite of a signal: there is work to save, and it will not take long."""
        assert self.trainer is not None
        assert self.writer is not None
        if (
            self.stop.urgent
            or self.trainer.epoch <= self.writer.saved
            or time.monotonic() - self.stop.received_at > FINISH_S
        ):
            return False
        ends = self.epoch_began + self.trainer.history.epoch_seconds[-1]
        return ends - self.stop.received_at <= FINISH_S

    def _heartbeat(self, step: int, steps: int) -> None:
        """Show that the run lives and how far it is; see whether it should not."""
        self.claim.check()
        if self.folder.cancel.exists():
            raise Cancelled("cancelled by 'sweep cancel'")
        assert self.trainer is not None
        record = self.claim.record
        write_json(
            self.folder.progress,
            Progress(
                run_id=record.run_id,
                attempt=record.number,
                job=record.job,
                host=record.host,
                epoch=self.trainer.epoch,
                epochs=self.commitment.training.epochs,
                step=step,
                steps=steps,
                started=record.started,
                heartbeat=now(),
                start_epoch=record.start_epoch,
                history=self.trainer.history,
                notes=self.notes,
            ),
        )
        self.last_heartbeat = time.monotonic()

    def _due(self, epoch_s: float) -> bool:
        """Tell whether to save now: after another epoch and its write more than the interval would be at stake."""
        assert self.writer is not None
        at_stake = time.monotonic() - self.last_save + epoch_s + self.writer.write_s
        return at_stake > self.options.checkpoint_interval_s

    def _save(self, trainer: Trainer) -> None:
        """Have the state written beside the training, after the write before it, which a slow disk may still be at."""
        assert self.writer is not None
        while not self.writer.wait(WAIT_S):
            self._look_around(trainer.steps, trainer.steps)
        self.last_save = time.monotonic()
        info = CheckpointInfo(
            commitment=self.commitment,
            attempt=self.claim.record.number,
            history=trainer.history,
            stretches=self.stretches,
            train_seconds=trainer.train_seconds,
            evaluation_seconds=trainer.evaluation_seconds,
            threads=self.threads,
            scaler=trainer.scaler_state(),
        )
        self.writer.save(info, trainer.state())

    def _finish(self, trainer: Trainer) -> None:
        """Write the result, once, see that it is good, and let the checkpoints go."""
        assert self.writer is not None
        if self.options.keep_checkpoints == "final":
            self._save(trainer)
        self.writer.close()
        log.info("%s", self.writer)
        self.claim.check()
        result = make_result(self.commitment, self.claim, trainer, self.dataset, self.stretches, self.pool)
        if not write_result(self.folder, result):
            log.warning("%s has a result of another attempt already, which stays", self._id)
        remove_needless(self.folder.checkpoints, self.options.keep_checkpoints, trainer.epoch)


def _log_epoch(trainer: Trainer, epochs: int) -> None:
    history = trainer.history
    log.info(
        "epoch %d/%d: train loss %.4f accuracy %.4f, val loss %.4f accuracy %.4f, %.2f s",
        trainer.epoch,
        epochs,
        history.train_loss[-1],
        history.train_accuracy[-1],
        history.val_loss[-1],
        history.val_accuracy[-1],
        history.epoch_seconds[-1],
    )
