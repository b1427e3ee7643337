"""How a run stands, as the report is told: the face of a run's status, the states' order and signs, times in words."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from enum import Enum
from typing import Protocol


class RunStatus(Protocol):
    """One run as `sweep status` knows it; whoever calls brings the class.

    epoch counts completed ones. log: a path. updated: the last sign of life.
    """

    @property
    def id(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def ratio(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def cause(self) -> str | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def job(self) -> str | None: ...
    @property
    def node(self) -> str | None: ...
    @property
    def log(self) -> str | None: ...
    @property
    def updated(self) -> datetime | None: ...
    @property
    def best_val_accuracy(self) -> float | None: ...


# In the order they are shown. The same signs as on the terminal; U+FE0E keeps telephones from drawing a picture.
SIGNS: dict[str, str] = {
    "done": "■",
    "running": "▶\ufe0e",
    "queued": "…",
    "interrupted": "‖",
    "failed": "✗",
    "cancelled": "–",
    "stale": "≠",
    "planned": "·",
}
UNKNOWN_SIGN = "?"


def word(value: str) -> str:
    """Give a state or a cause as its bare word, also where it is a member of an enumeration."""
    return str(value.value) if isinstance(value, Enum) else value


def sign(state: str) -> str:
    """Give the one character that stands for a state."""
    return SIGNS.get(word(state), UNKNOWN_SIGN)


def looks(state: str) -> str:
    """Give the class that colours a state."""
    return f"state-{word(state)}" if word(state) in SIGNS else "state-planned"


def counts(statuses: Sequence[RunStatus]) -> list[tuple[str, int]]:
    """Count the runs in each state that occurs, in the order of SIGNS."""
    counted = Counter(word(status.state) for status in statuses)
    known = [state for state in SIGNS if counted[state]]
    return [(state, counted[state]) for state in [*known, *sorted(set(counted).difference(known))]]


def moment(time: datetime | None) -> str:
    """Write a time in UTC to the second; "" for none."""
    if time is None:
        return ""
    aware = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return f"{aware.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Write a span of time with its two largest units: "3 h 12 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60} min"
