"""When a signal ends a run: at once, or after an epoch that is worth finishing."""

import math
import time

from trainer.loop.trainer import Trainer
from trainer.stop import StopSignal

FINISH_S = 10.0  # what a signal's sender leaves of its patience (Slurm 30 s) for an epoch that is nearly through


class Stopping:
    """Holds the signal against the epoch under way."""

    def __init__(self, signal: StopSignal) -> None:
        self._signal = signal
        self._epoch_began = math.inf

    @property
    def asked(self) -> bool:
        return self._signal.received is not None

    @property
    def epoch_s(self) -> float:
        """How long the epoch under way has taken."""
        return time.monotonic() - self._epoch_began

    def begin_epoch(self) -> None:
        self._epoch_began = time.monotonic()

    def check_between_epochs(self) -> None:
        """Raise Interrupted if a signal came."""
        self._signal.check()

    def check_within_epoch(self, trainer: Trainer, saved: int) -> None:
        """Raise Interrupted if a signal came, unless the epoch is worth finishing. saved: epochs in a checkpoint."""
        if self.asked and not self._worth_finishing(trainer, saved):
            self._signal.check()

    def _worth_finishing(self, trainer: Trainer, saved: int) -> bool:
        """Whether there is work to save, and the epoch will not take long."""
        signal = self._signal
        if signal.urgent or trainer.epoch <= saved or time.monotonic() - signal.received_at > FINISH_S:
            return False
        ends = self._epoch_began + trainer.history.epoch_seconds[-1]
        return ends - signal.received_at <= FINISH_S
