"""The end of a log, made fit to read: no control characters, progress lines as they stood at last, bounded."""

import re
from pathlib import Path
from typing import NamedTuple

LINES = 40
LINES_OF_DONE = 12  # of a run that ended well nobody looks for more
CHARACTERS = 8_000
LINE_CHARACTERS = 400
READ = 65_536  # bytes from the end; an overwritten progress line alone can be long

# Escape sequences of terminals: CSI (colours, cursor), OSC (titles, links), and the two-character ones.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# Also what turns the direction of text around, and halves of surrogate pairs, which have no UTF-8.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class LogTail(NamedTuple):
    """The last lines; whether there were more; what kept it from being read."""

    lines: tuple[str, ...]
    cut: bool
    problem: str | None = None


def read_tail(path: Path, lines: int = LINES) -> LogTail | None:
    """Read the last lines of a log; None if there is none. A log that cannot be read says so, and does not raise."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - READ))
            content = file.read(READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        return LogTail((), False, f"cannot be read: {error.strerror}")
    text = readable(content.decode(errors="replace")).strip("\n")
    found = text.split("\n") if text else []
    if size > READ:
        found = found[1:] or found  # the first one is cut in two
    kept: list[str] = []
    room = CHARACTERS
    for line in reversed(found[-lines:]):
        short = line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"
        if len(short) > room:
            break
        room -= len(short)
        kept.insert(0, short)
    return LogTail(tuple(kept), size > READ or len(kept) < len(found))


def readable(text: str) -> str:
    r"""Take a text as a terminal would leave it: gone is what a \r went back over, and every control character."""
    lines = ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(CONTROLS.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines)
