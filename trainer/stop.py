"""Being asked to stop: by a signal, by `sweep cancel`, by losing the claim."""

import math
import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Stopped(Exception):
    """The run stops here in good order; outcome says how it is recorded."""


class Interrupted(Stopped):
    """The run goes on from its checkpoint when called again; told_to_stop: a signal asked for it."""

    def __init__(self, words: str, *, told_to_stop: bool = False) -> None:
        super().__init__(words)
        self.told_to_stop = told_to_stop


class CutOff(Interrupted):
    """The run's processes lost each other, and none of them knows why."""


class Cancelled(Stopped):
    """The user cancelled this run; the process may go on with others."""


class ClaimLost(Stopped):
    """Another process has taken the run over; this one must not write another byte."""


class StopSignal:
    """Remembers the first signal that asked to stop, so that the work in flight can finish.

    urgent: Ctrl-C came again. Slurm's signals often come twice, to the job's step and through its parent.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.received_at = math.inf  # time.monotonic()
        self.urgent = False

    def install(self) -> "StopSignal":
        """Catch SIGTERM, SIGINT and SIGUSR2 from now on."""
        for number in SIGNALS:
            signal.signal(number, self._remember)
        return self

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self.received:
            raise Interrupted(f"stopped by {self.received}", told_to_stop=True)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            self.urgent = self.urgent or number == signal.SIGINT
            return
        self.received_at = time.monotonic()
        self.received = signal.Signals(number).name
