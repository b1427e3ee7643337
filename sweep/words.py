"""Words that many commands share: durations, the nearest name, the last line of a message."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """End a sentence with the nearest valid name; with the words given, or all the names, where none is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; {otherwise or 'expected one of: ' + ', '.join(known)}"


def nearest_run(name: str, known: Iterable[str]) -> str:
    """End a sentence with the nearest run id: a long list of ids helps nobody."""
    return nearest(name, known, otherwise="'sweep status' lists them")


def hours(seconds: float) -> str:
    """A duration as its reader would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def last_line(message: str | None) -> str:
    """The last line of a message: the one that says what happened."""
    lines = [line for line in (message or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
