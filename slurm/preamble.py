"""What a job's script does before its task: load the pool's modules, execute its setup lines, end at the first failure.

The script's own shell executes them, so what they set holds for the task. Each is announced in the job's log before it
begins, and so is the end of all: from the log alone can be told which one ended a job, and what it printed.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SHOWN = 3  # lines of output in a sentence

_CHECK = """\
sweep_check() {
    [ "$1" -eq 0 ] || { printf 'sweep: setup failed with exit code %s: %s\\n' "$1" "$2" >&2; exit 1; }
}"""
# A batch shell is no login shell: on many sites `module` is a function that only login shells are given.
_FIND_MODULE = """\
type module >/dev/null 2>&1 ||
for sweep_init in "${MODULESHOME:-}/init/bash" "${LMOD_PKG:-}/init/bash" /etc/profile.d/modules.sh \\
    /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh; do
    if [ -r "$sweep_init" ]; then . "$sweep_init"; fi
    if type module >/dev/null 2>&1; then break; fi
done"""
_MARK = re.compile(
    r"^sweep: setup(?:: (?P<begun>.*)| failed with exit code (?P<code>\d+): (?P<failed>.*)| (?P<done>done))$", re.M
)


class SetupFailure(NamedTuple):
    """The line that ended a job, with its last words. code: its exit code, None where it ended the shell itself."""

    line: str
    code: int | None
    output: str


def preamble(modules: Sequence[str], setup: Sequence[str]) -> list[str]:
    """The lines of shell before a task; none where a pool has neither modules nor setup lines."""
    if not modules and not setup:
        return []
    load = [f"module load {shlex.quote(module)}" for module in modules]
    return list(_script([_FIND_MODULE] if modules else [], [*load, *setup]))


def read_failure(log: str) -> SetupFailure | None:
    """Find in a job's log the setup line that ended it; None if all did well, or there were none."""
    marks = list(_MARK.finditer(log))
    if not marks or marks[-1]["done"]:
        return None
    last = marks[-1]
    if last["begun"] is not None:
        return SetupFailure(last["begun"], None, _last_words(log[last.end() :]))
    start = marks[-2].end() if len(marks) > 1 else 0
    return SetupFailure(last["failed"], int(last["code"]), _last_words(log[start : last.start()]))


def _script(before: Sequence[str], lines: Sequence[str]) -> Iterator[str]:
    yield _CHECK
    yield from before
    for line in lines:
        shown = shlex.quote(_first_line(line))
        yield f"printf 'sweep: setup: %s\\n' {shown} >&2"
        yield f"eval {shlex.quote(line)}"
        yield f"sweep_check $? {shown}"
    yield "unset -f sweep_check"
    yield "echo 'sweep: setup done' >&2"


def _first_line(entry: str) -> str:
    first, _, more = entry.strip().partition("\n")
    return f"{first} ..." if more else first


def _last_words(text: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return " / ".join(line if len(line) <= 200 else f"{line[:197]}..." for line in lines[-SHOWN:])
