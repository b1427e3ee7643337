"""Showing that a run lives and how far it is, and seeing whether it should not go on."""

import logging
import math
import time
from concurrent import futures

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
    """Writes a run's progress, and looks for its cancel request and for another owner.

    A thread does so, for a disk may take long: one write at a time, and then the newest progress, not each. What the
    thread finds is raised in the loop, at its next look.
    """

    def __init__(self, folder: RunFolder, claim: Claim, epochs: int) -> None:
        self._folder = folder
        self._claim = claim
        self._epochs = epochs
        self._notes: list[str] = []
        self._last = -math.inf
        self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="pulse")
        self._writing: futures.Future[None] | None = None
        self._next: Progress | None = None

    def note(self, words: str) -> None:
        """Put into log and progress what the reader of the result should know."""
        self._notes.append(words)
        log.warning("%s", words)

    def beat_if_due(self, trainer: Trainer, step: int) -> None:
        """Go on with what is to be written, every few seconds with something new. Raises what `beat` does."""
        if time.monotonic() - self._last >= HEARTBEAT_S:
            self.beat(trainer, step)
        else:
            self._go_on()

    def beat(self, trainer: Trainer, step: int) -> None:
        """Have the progress after a step of an epoch written.

        Raises what kept the progress before from being written: ClaimLost, Cancelled, OSError.
        """
        record = self._claim.record
        self._next = Progress(
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
            notes=list(self._notes),
        )
        self._last = time.monotonic()
        self._go_on()

    def end(self) -> None:
        """Write what is left to be written, and end the thread. Raises what `beat` does, once."""
        try:
            while self._writing or self._next:
                if self._writing:
                    futures.wait([self._writing])
                self._go_on()
        finally:
            self._next = None
            self._thread.shutdown()

    def _go_on(self) -> None:
        if self._writing and self._writing.done():
            writing, self._writing = self._writing, None
            writing.result()
        if self._next and not self._writing:
            self._writing, self._next = self._thread.submit(self._write, self._next), None

    def _write(self, progress: Progress) -> None:
        self._claim.check()
        if self._folder.cancel.exists():
            raise Cancelled("cancelled by 'sweep cancel'")
        write_json(self._folder.progress, progress)
