"""Ctrl-C while jobs are waited for: counted, so that whoever waits decides what the first and the second mean."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """How often SIGINT or SIGTERM has come."""

    count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


@contextmanager
def counted() -> Iterator[Interrupts]:
    """Count SIGINT and SIGTERM in this block instead of dying of them."""
    counter = Interrupts()
    previous = {number: signal.signal(number, counter) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counter
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
