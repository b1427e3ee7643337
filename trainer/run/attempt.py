"""One attempt under way: put together, trained, and how it ended written down.

Owns the order of writes: commitment, progress as it goes, checkpoints, and last the result or the error.
"""

import logging
from functools import partial

from trainer.distributed.launch import Others
from trainer.loop.build import Work, make_trainer
from trainer.loop.group import Group
from trainer.loop.trainer import Trainer, train
from trainer.records.attempt import ExitCode
from trainer.records.checkpoint_file import remove_needless
from trainer.records.files import clear_unfinished, patiently, write_json
from trainer.run.assignment import Assignment
from trainer.run.last_word import LastWord
from trainer.run.pulse import Pulse
from trainer.run.result import make_result, write_result
from trainer.run.resume import resume
from trainer.run.saving import Saving
from trainer.run.stopping import Stopping
from trainer.stop import ClaimLost, Stopped, StopSignal

log = logging.getLogger("trainer")


class RunningAttempt:
    """An attempt while it lasts. others: the processes that share the run's replicas with this one."""

    def __init__(self, what: Assignment, stop: StopSignal, others: Others | None) -> None:
        self.what = what
        self.others = others
        self.stopping = Stopping(stop)
        self.pulse = Pulse(what.folder, what.claim, what.commitment.training.epochs)
        self.last_word = LastWord(what.folder, what.claim)
        self.trainer: Trainer | None = None
        self.saving: Saving | None = None

    def run(self) -> ExitCode:
        """Train to the end, or to whatever ends it, and record which it was."""
        if self.others:
            self.others.record = lambda error: self.last_word.write(error, self._epoch)
        try:
            try:
                self._train()
            except BaseException as error:
                self._end_writers()
                if self.others:
                    self.others.part(error)
                raise
        except Exception as error:  # whatever ends a run is recorded; nothing is swallowed
            # Nothing but this clause may name the error in this frame, which its traceback holds: a cycle around the
            # trainer kept the GPU's memory from the next run.
            return self.last_word.write(error, self._epoch)
        return self.last_word.write(None, self._epoch)

    @property
    def _epoch(self) -> int:
        return self.trainer.epoch if self.trainer else 0

    def _end_writers(self) -> None:
        """See the writes in flight through: what they save is work that need not be done again."""
        try:
            if self.saving:
                self.saving.writer.close()
        except (OSError, ClaimLost) as error:
            log.error("%s: the last checkpoint was not written: %s", self.what.run_id, error)
        try:
            self.pulse.end()
        except (OSError, Stopped) as error:
            log.debug("%s: the last progress was not written: %s", self.what.run_id, error)

    def _train(self) -> None:
        what = self.what
        write_json(what.folder.commitment, what.commitment)
        patiently(lambda: what.folder.error.unlink(missing_ok=True))
        for folder in (what.folder.path, what.folder.attempts, what.folder.checkpoints):
            clear_unfinished(folder)
        self.last_word.hold_room()
        trainer = self.trainer = self._put_together()
        saving = self.saving = resume(what, trainer, self.pulse)
        _log_start(what, trainer)
        what.claim.update(start_epoch=trainer.epoch, end_epoch=trainer.epoch)
        self.pulse.beat(trainer, 0)
        saving.begin()
        self.stopping.begin_epoch()
        train(trainer, partial(self._tick, trainer, saving), partial(self._after_epoch, trainer, saving))
        self._finish(trainer, saving)

    def _put_together(self) -> Trainer:
        """Put the run together as it begins, in all of its processes."""
        what, group = self.what, Group()
        if self.others:
            group = self.others.gather()
            work = Work(spec=what.commitment, data=what.dataset.folder.parent, device=what.device.type)
            group.broadcast_words(work.model_dump_json())
        return make_trainer(what.commitment, what.dataset, what.kept, what.device, group)

    def _tick(self, trainer: Trainer, saving: Saving, step: int, steps: int) -> None:
        self.stopping.check_within_epoch(trainer, saving.writer.saved)
        self._look_around(trainer, saving, step)

    def _look_around(self, trainer: Trainer, saving: Saving, step: int) -> None:
        saving.writer.wait(0)
        self.pulse.beat_if_due(trainer, step)

    def _after_epoch(self, trainer: Trainer, saving: Saving) -> None:
        epochs = self.what.commitment.training.epochs
        self.pulse.beat(trainer, trainer.steps)
        _log_epoch(trainer, epochs)
        if trainer.epoch < epochs:
            if self.stopping.asked or saving.due(self.stopping.epoch_s):
                self._save(trainer, saving)
            self.stopping.check_between_epochs()
            self.stopping.begin_epoch()

    def _save(self, trainer: Trainer, saving: Saving) -> None:
        saving.save(trainer, partial(self._look_around, trainer, saving, trainer.steps))

    def _finish(self, trainer: Trainer, saving: Saving) -> None:
        """Write the result, once, see that it is good, and let the checkpoints go."""
        what = self.what
        if what.options.keep_checkpoints == "final":
            self._save(trainer, saving)
        saving.writer.close()
        self.pulse.end()
        log.info("%s", saving.writer)
        what.claim.check()
        if not write_result(what.folder, make_result(what, trainer, saving.computing.stretches)):
            log.warning("%s has a result of another attempt already, which stays", what.run_id)
        remove_needless(what.folder.checkpoints, what.options.keep_checkpoints, trainer.epoch)


def _log_start(what: Assignment, trainer: Trainer) -> None:
    processes = trainer.group.size
    log.info(
        "%s attempt %d on %s, %s: %d training images, %d steps of %d × %d, from epoch %d of %d",
        what.run_id,
        what.claim.record.number,
        f"{what.device.type} in {processes} processes" if processes > 1 else what.device,
        trainer.precision,
        len(what.kept),
        trainer.steps,
        trainer.recipe.replicas,
        trainer.batch,
        trainer.epoch,
        trainer.recipe.epochs,
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
