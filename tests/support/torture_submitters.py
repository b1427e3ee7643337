"""Kill `sweep submit` and `sweep retry` at drawn moments, and tell from their intents on disk where that hit them."""

import contextlib
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from conftest import LONG_S, Command, read

LOOK_S = 0.005
LATER_S = 8.0  # within which one that waits for its jobs is killed
LONGEST_S = 15.0  # within which any is killed: its sign may never show, where it waits for room
# After each sign: how long at most until the kill. None: the life of an undisturbed one.
SIGNS: dict[str, float | None] = {"start": None, "intent": 0.15, "asked": 0.2, "answered": 0.01}
WAITS = "waits"
MOST_ARRAYS = 4
ENDED = "ended before its moment"
BETWEEN = "between two"  # a few milliseconds, in which few are killed
PHASES = (
    "before its intent",
    "before its first sbatch",
    "at its first sbatch",
    "at a later sbatch",
    BETWEEN,
    "after its last sbatch",
    "while it waited",
)


class Moment(NamedTuple):
    """When to kill: so long after a sign in the intent; number: of the array that the sign is about, or the last."""

    sign: str
    number: int
    delay_s: float

    def __str__(self) -> str:
        number = f" {self.number}" if self.sign in ("asked", "answered") else ""
        return f"{self.delay_s:.3f} s after '{self.sign}{number}'"


class Kill(NamedTuple):
    """What became of a submitter. tokens: of the submissions it made; said: on stderr, by then; whole: see `kill`."""

    command: Sequence[str]
    moment: Moment
    phase: str
    tokens: Sequence[str]
    said: str
    lived_s: float
    whole: bool

    def __str__(self) -> str:
        what = f"{' '.join(self.command)}{' and its children' if self.whole else ''}, {self.moment}"
        return f"{what}: {self.phase}, {', '.join(self.tokens) or 'no submission'}"


def draw_moment(draw: random.Random, life_s: float, *, waits: bool) -> Moment:
    """Draw a moment of a submitter's life. life_s: how long an undisturbed one that does not wait lives."""
    sign = draw.choice([*SIGNS, "asked", *([WAITS, WAITS] if waits else [])])
    longest_s = LATER_S if sign == WAITS else SIGNS[sign] or life_s
    return Moment(sign, draw.randint(1, MOST_ARRAYS), draw.uniform(0, longest_s))


def kill(process: "subprocess.Popen[str]", *, whole: bool) -> None:
    """Kill a submitter; whole: with what it has started, such as an sbatch, as the end of a login node would."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True) if whole else []
    process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


class Submitters:
    """Starts submitters of a sweep and kills them. submissions: the folder of their intents."""

    def __init__(self, sweep: Command, submissions: Path) -> None:
        self.sweep = sweep
        self.submissions = submissions

    def kill(self, command: Sequence[str], moment: Moment, *, whole: bool) -> Kill:
        """Start a submitter and kill it at a moment; one that ends sooner is told of as well."""
        before = self._intents()
        process = self.sweep.start(*command)
        started = time.monotonic()
        deadline = started + LONGEST_S
        due: float | None = None
        while process.poll() is None and time.monotonic() < deadline:
            if due is None and self._shows(moment, self._own(process.pid, before)):
                due = time.monotonic() + moment.delay_s
            if due is not None and time.monotonic() >= due:
                break
            time.sleep(LOOK_S)
        kill(process, whole=whole)
        lived_s = time.monotonic() - started
        _, said = process.communicate(timeout=LONG_S)
        own = self._own(process.pid, before)
        phase = ENDED if process.returncode >= 0 else self._phase(own, waited=moment.sign == WAITS)
        return Kill(command, moment, phase, [intent["token"] for intent in own], said, lived_s, whole)

    def _intents(self) -> set[Path]:
        return set(self.submissions.glob("*.json"))

    def _own(self, pid: int, before: set[Path]) -> list[Any]:
        """Read the intents of a process, oldest first."""
        intents = [read(path) for path in sorted(self._intents() - before)]
        return [intent for intent in intents if intent["submitter"]["pid"] == pid]

    def _shows(self, moment: Moment, own: list[Any]) -> bool:
        arrays = [array for intent in own for array in intent["arrays"]]
        number = min(moment.number, len(arrays))
        match moment.sign:
            case "start":
                return True
            case "intent":
                return bool(own)
            case "asked":
                return bool(arrays) and sum(array["asked"] is not None for array in arrays) >= number
            case "answered":
                return bool(arrays) and sum(map(_answered, arrays)) >= number
        return bool(arrays) and all(map(_answered, arrays))

    def _phase(self, own: list[Any], *, waited: bool) -> str:
        if not own:
            return PHASES[0]
        arrays = own[-1]["arrays"]
        asked = sum(array["asked"] is not None for array in arrays)
        answered = sum(map(_answered, arrays))
        if asked == 0:
            return PHASES[1]
        if answered < asked:
            return PHASES[2 if asked == 1 else 3]
        return PHASES[4 if answered < len(arrays) else 6 if waited else 5]


def _answered(array: Any) -> bool:
    return array["job"] is not None or array["refused"] is not None
