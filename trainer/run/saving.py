"""When an attempt's state is written, and with what it says of itself."""

import math
import time
from collections.abc import Callable

from trainer.checkpoint.writer import CheckpointWriter
from trainer.loop.trainer import Trainer
from trainer.records.checkpoint_file import CheckpointInfo
from trainer.records.run import Commitment
from trainer.run.computing import Computing

WAIT_S = 0.5  # between looks around while a write is waited for


class Saving:
    """Saves a run's state beside its training, so often that no more than interval_s of work is at stake."""

    def __init__(
        self, commitment: Commitment, attempt: int, computing: Computing, writer: CheckpointWriter, interval_s: float
    ) -> None:
        self.computing = computing
        self.writer = writer
        self._commitment = commitment
        self._attempt = attempt
        self._interval_s = interval_s
        self._last = -math.inf

    def begin(self) -> None:
        """Count the work at stake from now on."""
        self._last = time.monotonic()

    def due(self, epoch_s: float) -> bool:
        """Whether to save now: after another epoch and its write more than the interval would be at stake."""
        return time.monotonic() - self._last + epoch_s + self.writer.write_s > self._interval_s

    def save(self, trainer: Trainer, look_around: Callable[[], None]) -> None:
        """Begin a write, after the one before it, which a slow disk may still be at. Raises what `look_around` does."""
        while not self.writer.wait(WAIT_S):
            look_around()
        self._last = time.monotonic()
        info = CheckpointInfo(
            commitment=self._commitment,
            attempt=self._attempt,
            history=trainer.history,
            stretches=self.computing.stretches,
            train_seconds=trainer.train_seconds,
            evaluation_seconds=trainer.evaluation_seconds,
            threads=self.computing.threads,
            scaler=trainer.scaler_state(),
        )
        self.writer.save(info, trainer.state())
