"""The end of a log, made readable: no control characters, only the final state of progress lines, bounded in size."""

import re
from pathlib import Path
from typing import NamedTuple

LINES = 40
LINES_OF_DONE = 12  # enough for a run that succeeded
CHARACTERS = 8_000
LINE_CHARACTERS = 400
READ = 65_536  # bytes from the end; an overwritten progress line can be long

# Escape sequences of terminals: CSI (colours, cursor), OSC (titles, links), and the two-character ones.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# Also overrides of the text direction, and lone surrogates, which UTF-8 cannot encode.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class LogTail(NamedTuple):
    """The last lines. cut: whether there were more. problem: why the log could not be read."""

    lines: tuple[str, ...]
    cut: bool
    problem: str | None = None


def read_tail(path: Path, lines: int = LINES) -> LogTail | None:
    """Read the last lines of a log; None if it does not exist. Does not raise: an OSError becomes `problem`."""
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
    all_lines = text.split("\n") if text else []
    if size > READ:
        all_lines = all_lines[1:] or all_lines  # the first one is cut in two
    kept: list[str] = []
    room = CHARACTERS
    for line in reversed(all_lines[-lines:]):
        short = line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"
        if len(short) > room:
            break
        room -= len(short)
        kept.insert(0, short)
    return LogTail(tuple(kept), size > READ or len(kept) < len(all_lines))


def readable(text: str) -> str:
    r"""Reduce text to what a terminal would show at the end: without what a \r overwrote and control characters."""
    lines = ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(CONTROLS.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines)
