"""Which code runs: the record of a frozen copy, the state of a checkout, how a process starts another with its code."""

import re
import subprocess
import sys
from pathlib import Path

from trainer.records.base import Record

ROOT = Path(__file__).parents[2]  # where our packages are imported from: a clone, site-packages, or a frozen copy
STARTER = "__main__.py"
NAME = re.compile(r"[0-9a-f]{16}")


class Code(Record):
    """The code of a submission's jobs, frozen when it was sent.

    snapshot: the name of the folder that holds it, made of its content. commit: what was checked out where it came
    from, None where that was no checkout; dirty: with uncommitted changes. own: a name made of the content of the
    user's own modules, None where there are none.
    """

    snapshot: str
    commit: str | None = None
    dirty: bool | None = None
    own: str | None = None

    def __str__(self) -> str:
        commit = f", commit {self.commit[:12]}" if self.commit else ""
        return f"{self.snapshot}{commit}{' with uncommitted changes' if self.dirty else ''}"


def own_snapshot() -> Path | None:
    """The frozen copy whose code this process runs; None where it runs an installation or a clone."""
    return ROOT if NAME.fullmatch(ROOT.name) and (ROOT / STARTER).is_file() else None


def module_command(module: str, snapshot: Path | None, python: str = sys.executable) -> list[str]:
    """The command that runs a module of ours, with the code of a snapshot or, without one, of this installation.

    A snapshot is run as a folder, which Python puts first on its import path. With `-m` the current folder would be
    first, and that is where the user edits.
    """
    return [python, "-u", *([str(snapshot)] if snapshot else ["-m"]), module]


def code_state(told: Code | None) -> tuple[str | None, bool | None]:
    """(commit, dirty) of the code that this process runs; told: what it was sent with, if it is that."""
    own = own_snapshot()
    if told is not None and own is not None and own.name == told.snapshot:
        return told.commit, told.dirty
    return git_state(Path(__file__).parent)


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, has uncommitted changes) of the checkout that a folder's code is part of, (None, None) without one.

    A copy that lies in another project's checkout, in its virtual environment for instance, is not part of it.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    return commit.strip(), bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None
