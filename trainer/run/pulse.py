"""Showing that a run lives and how far it is, and seeing whether it should not go on."""

import logging
import math
import time

from trainer.loop.trainer import Trainer
from trainer.records.alive import HEARTBEAT_S
from trainer.records.base import now
from trainer.records.claim import Claim
from trainer.records.files import write_json
from trainer.records.run import RunFolder
from trainer.records.status import Progress
from trainer.stop import Cancelled

log = logging.getLogger("trainer")


class Pulse:
    """Writes a run's progress, and looks for its cancel request and for another owner."""

    def __init__(self, folder: RunFolder, claim: Claim, epochs: int) -> None:
        self._folder = folder
        self._claim = claim
        self._epochs = epochs
        self._notes: list[str] = []
        self._last = -math.inf

    def note(self, words: str) -> None:
        """Put into log and progress what the reader of the result should know."""
        self._notes.append(words)
        log.warning("%s", words)

    def beat_if_due(self, trainer: Trainer, step: int) -> None:
        if time.monotonic() - self._last >= HEARTBEAT_S:
            self.beat(trainer, step)

    def beat(self, trainer: Trainer, step: int) -> None:
        """Write the progress after a step of an epoch. Raises ClaimLost, Cancelled, OSError."""
        self._claim.check()
        if self._folder.cancel.exists():
            raise Cancelled("cancelled by 'sweep cancel'")
        record = self._claim.record
        progress = Progress(
            run_id=record.run_id,
            attempt=record.number,
            job=record.job,
            host=record.host,
            epoch=trainer.epoch,
            epochs=self._epochs,
            step=step,
            steps=trainer.steps,
            started=record.started,
            heartbeat=now(),
            start_epoch=record.start_epoch,
            history=trainer.history,
            notes=self._notes,
        )
        write_json(self._folder.progress, progress)
        self._last = time.monotonic()
