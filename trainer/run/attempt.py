"""One attempt under way: put together, trained, and how it ended written down.

Owns the order of writes: commitment, progress as it goes, checkpoints, and last the result or the error.
"""

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from trainer.checkpoint.tensors import Checkpoint, newest_good
from trainer.checkpoint.writer import CheckpointWriter
from trainer.data.prepared import PreparedDataset
from trainer.distributed.launch import Others
from trainer.loop.build import ResumePoint, Work, make_trainer, start_alike
from trainer.loop.group import Alone, LostError
from trainer.loop.trainer import DivergedError, StateError, Trainer, train
from trainer.records.attempt import Cause, ExitCode, Outcome
from trainer.records.checkpoint_file import CheckpointError, remove_needless
from trainer.records.claim import Claim
from trainer.records.files import Reserve, clear_unfinished, patiently, write_json
from trainer.records.run import Commitment, Options, RunFolder, RunSpec
from trainer.run.computing import Computing
from trainer.run.failure import record_failure
from trainer.run.pulse import Pulse
from trainer.run.result import make_result, write_result
from trainer.run.saving import Saving
from trainer.stop import Cancelled, ClaimLost, Interrupted, Stopped, StopSignal

log = logging.getLogger("trainer")

FINISH_S = 10.0  # what a signal's sender leaves of its patience (Slurm 30 s) for an epoch that is nearly through


class Assignment(NamedTuple):
    """What an attempt is to do, settled before it begins. kept: indices of its training images."""

    commitment: Commitment
    folder: RunFolder
    claim: Claim
    dataset: PreparedDataset
    kept: npt.NDArray[np.int64]
    device: torch.device
    pool: str
    options: Options


class OneAttempt:
    """An attempt while it lasts. others: the processes that share the run's replicas with this one."""

    def __init__(self, what: Assignment, stop: StopSignal, others: Others | None) -> None:
        self.what = what
        self.stop = stop
        self.others = others
        self.pulse = Pulse(what.folder, what.claim, what.commitment.training.epochs)
        self.trainer: Trainer | None = None
        self.saving: Saving | None = None
        self.reserve: Reserve | None = None
        self.epoch_began = math.inf

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
            told = reason.told_to_stop
            return self._close(ExitCode.INTERRUPTED, "interrupted", Cause.KILLED, str(reason), told_to_stop=told)
        except Cancelled as reason:
            log.warning("%s cancelled after %d epochs", self._id, self.epoch)
            return self._close(ExitCode.INTERRUPTED, "cancelled", None, str(reason))
        except Exception as error:  # whatever ends a run is recorded; nothing is swallowed
            # Unnamed, or this frame would hold the error whose traceback holds the frame: a cycle around the trainer,
            # which kept the GPU's memory from the next run.
            folder, claim = self.what.folder, self.what.claim
            return self._last_word(ExitCode.FAILED, partial(record_failure, folder, claim, error, self.epoch))
        return self._close(ExitCode.DONE, "done", None, None)

    @property
    def _id(self) -> str:
        return self.what.commitment.run.id

    def _close(
        self, code: ExitCode, outcome: Outcome, cause: Cause | None, message: str | None, *, told_to_stop: bool = False
    ) -> ExitCode:
        claim, epoch = self.what.claim, self.epoch
        return self._last_word(code, lambda: claim.close(outcome, epoch, cause, message, told_to_stop=told_to_stop))

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
        if self.saving:
            try:
                self.saving.writer.close()
            except (OSError, ClaimLost) as error:
                log.error("%s: the last checkpoint was not written: %s", self._id, error)

    def _part(self, error: BaseException) -> None:
        """Leave the run's other processes where they wait for the next run, or end them wherever they are.

        Raises what is behind it where they could not be reached.
        """
        if self.others is None or isinstance(error, Stopped | DivergedError):
            return
        reason = self.others.explain(error) if isinstance(error, LostError) else None
        self.others.abandon()
        if reason:
            raise reason from error

    def _train(self) -> None:
        what = self.what
        write_json(what.folder.commitment, what.commitment)
        patiently(lambda: what.folder.error.unlink(missing_ok=True))
        for folder in (what.folder.path, what.folder.attempts, what.folder.checkpoints):
            clear_unfinished(folder)
        self.reserve = Reserve(what.folder.path)
        trainer, saving = self._set_up()
        what.claim.update(start_epoch=trainer.epoch, end_epoch=trainer.epoch)
        self.pulse.beat(trainer, 0)
        saving.begin()
        self.epoch_began = time.monotonic()
        train(trainer, partial(self._tick, trainer, saving), partial(self._after_epoch, trainer, saving))
        self._finish(trainer, saving)

    def _after_epoch(self, trainer: Trainer, saving: Saving) -> None:
        epochs = self.what.commitment.training.epochs
        self.pulse.beat(trainer, trainer.steps)
        _log_epoch(trainer, epochs)
        if trainer.epoch < epochs:
            if self.stop.received or saving.due(time.monotonic() - self.epoch_began):
                self._save(trainer, saving)
            self.stop.check()
            self.epoch_began = time.monotonic()

    def _set_up(self) -> tuple[Trainer, Saving]:
        """Put the run together as its newest good checkpoint has it, or as it begins; in all of its processes."""
        what = self.what
        run, recipe = what.commitment.run, what.commitment.training
        spec = RunSpec(run=run, training=recipe)
        group: Alone = Alone()
        if self.others:
            self.others.gather()
            group = self.others.group
            work = Work(spec=spec, data=what.dataset.folder.parent, device=what.device.type)
            group.share(work.model_dump_json())
        trainer = self.trainer = make_trainer(spec, what.dataset, what.kept, what.device, group)
        found, passed_over = newest_good(what.folder.checkpoints, what.commitment)
        for reason in passed_over.values():
            self.pulse.note(f"checkpoint passed over: {reason}")
        computing = Computing(found.info if found else None, what.options.threads)
        if found:
            try:
                _restore(trainer, found)
            except StateError as error:
                reason = f"is of another {run.architecture} than this version's: {error}; move it away to start anew"
                raise CheckpointError(found.path, reason) from error
        differs = computing.go_on(trainer)
        if differs:
            self.pulse.note(differs)
        point = ResumePoint(
            history=trainer.history,
            scaler=trainer.scaler_state(),
            moments=bool(trainer.optimizer.state),
            threads=torch.get_num_threads(),
        )
        start_alike(trainer, point)
        writer = CheckpointWriter(
            what.folder.checkpoints, what.claim.check, saved=trainer.epoch, passed_over=passed_over
        )
        self.saving = Saving(
            what.commitment, what.claim.record.number, computing, writer, what.options.checkpoint_interval_s
        )
        log.info(
            "%s attempt %d on %s, %s: %d training images, %d steps of %d × %d, from epoch %d of %d",
            run.id,
            what.claim.record.number,
            f"{what.device.type} in {group.size} processes" if group.size > 1 else what.device,
            trainer.precision,
            len(what.kept),
            trainer.steps,
            recipe.replicas,
            trainer.batch,
            trainer.epoch,
            recipe.epochs,
        )
        return trainer, self.saving

    def _tick(self, trainer: Trainer, saving: Saving, step: int, steps: int) -> None:
        if self.stop.received and not self._worth_finishing(trainer, saving):
            self.stop.check()
        self._look_around(trainer, saving, step)

    def _look_around(self, trainer: Trainer, saving: Saving, step: int) -> None:
        saving.writer.wait(0)
        self.pulse.beat_if_due(trainer, step)

    def _worth_finishing(self, trainer: Trainer, saving: Saving) -> bool:
        """Tell whether to end the epoch in spite of a signal: there is work to save, and it will not take long."""
        if (
            self.stop.urgent
            or trainer.epoch <= saving.writer.saved
            or time.monotonic() - self.stop.received_at > FINISH_S
        ):
            return False
        ends = self.epoch_began + trainer.history.epoch_seconds[-1]
        return ends - self.stop.received_at <= FINISH_S

    def _save(self, trainer: Trainer, saving: Saving) -> None:
        saving.save(trainer, partial(self._look_around, trainer, saving, trainer.steps))

    def _finish(self, trainer: Trainer, saving: Saving) -> None:
        """Write the result, once, see that it is good, and let the checkpoints go."""
        what = self.what
        if what.options.keep_checkpoints == "final":
            self._save(trainer, saving)
        saving.writer.close()
        log.info("%s", saving.writer)
        what.claim.check()
        stretches = saving.computing.stretches
        result = make_result(what.commitment, what.claim, trainer, what.dataset, stretches, what.pool)
        if not write_result(what.folder, result):
            log.warning("%s has a result of another attempt already, which stays", self._id)
        remove_needless(what.folder.checkpoints, what.options.keep_checkpoints, trainer.epoch)


def _restore(trainer: Trainer, found: Checkpoint) -> None:
    info = found.info
    trainer.restore(
        found.tensors,
        info.history,
        train_seconds=info.train_seconds,
        evaluation_seconds=info.evaluation_seconds,
        scaler=info.scaler,
    )


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
