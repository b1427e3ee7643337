"""The order and signs of the states, and times in words."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

from analysis.study import Standing

# In display order, with the same signs as on the terminal; U+FE0E keeps phones from drawing an emoji.
SIGNS: dict[str, str] = {
    "done": "■",
    "running": "▶\ufe0e",
    "stalled": "!",
    "starting": "▷",
    "queued": "…",
    "interrupted": "‖",
    "failed": "✗",
    "cancelled": "–",
    "stale": "≠",
    "planned": "·",
}
UNKNOWN_SIGN = "?"


def sign(state: str) -> str:
    """Return the sign of a state."""
    return SIGNS.get(state, UNKNOWN_SIGN)


def looks(state: str) -> str:
    """Return the CSS class that colours a state."""
    return f"state-{state}" if state in SIGNS else "state-planned"


def counts(statuses: Sequence[Standing]) -> list[tuple[str, int]]:
    """Count the runs in each state that occurs, in the order of SIGNS."""
    counted = Counter(status.state for status in statuses)
    known = [state for state in SIGNS if counted[state]]
    return [(state, counted[state]) for state in [*known, *sorted(set(counted).difference(known))]]


def moment(time: datetime | None) -> str:
    """Format a time in UTC, to the second; "" for None."""
    if time is None:
        return ""
    aware = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return f"{aware.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Format a duration in hours and minutes: "3 h 12 min"; below a minute in seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60} min"
