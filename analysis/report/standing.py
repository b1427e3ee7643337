"""The states in their order with their signs, and times in words."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

from analysis.study import Standing

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


def sign(state: str) -> str:
    """Give the one character that stands for a state."""
    return SIGNS.get(state, UNKNOWN_SIGN)


def looks(state: str) -> str:
    """Give the class that colours a state."""
    return f"state-{state}" if state in SIGNS else "state-planned"


def counts(statuses: Sequence[Standing]) -> list[tuple[str, int]]:
    """Count the runs in each state that occurs, in the order of SIGNS."""
    counted = Counter(status.state for status in statuses)
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
