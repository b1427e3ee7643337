"""Our packages, frozen for the jobs of a submission: stored once by content, under submissions/code/.

What is edited, checked out or deleted after a submission changes nothing for its jobs. Only the interpreter and what is
installed beside us stay where they are. Of our packages a job needs these two, and of them nothing but Python files.
"""

import contextlib
import errno
import hashlib
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from trainer.records.code import ROOT, STARTER, Code, git_state
from trainer.records.files import UNFINISHED, to_json
from trainer.records.run import Bundle

PACKAGES = ("slurm", "trainer")
FOLDER = "code"
_START = b'''"""Run a module of these packages: python FOLDER MODULE [ARGUMENT ...]."""

import runpy
import sys

del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
'''
_READ = """\
import sys
sys.path.insert(0, sys.argv[1])
from trainer.records.files import first_problem, from_json
from trainer.records.run import Bundle
from pydantic import ValidationError
try:
    from_json(sys.stdin.buffer.read(), Bundle)
except ValidationError as error:
    sys.exit(first_problem(error))
"""
READ_S = 60


class FrozenCode(NamedTuple):
    """The packages as they stood at one moment: their files by relative path, and the record that names them."""

    record: Code
    files: Mapping[str, bytes]


def freeze(root: Path = ROOT) -> FrozenCode:
    """Read the packages that lie in a folder. Raises OSError."""
    files = {name: content for package in PACKAGES for name, content in _read(root, package).items()}
    files[STARTER] = _START
    commit, dirty = git_state(root / PACKAGES[0])
    return FrozenCode(Code(snapshot=_name(files), commit=commit, dirty=dirty), files)


def snapshot(submissions: Path, code: Code) -> Path:
    """Where a frozen copy lies in a sweep's folder of submissions."""
    return submissions / FOLDER / code.snapshot


def store(frozen: FrozenCode, submissions: Path) -> None:
    """Put a frozen copy where `snapshot` finds it; one that is there is kept if it is whole. Raises OSError.

    It appears whole, under its name. Of several who store it at the same moment one is the first, and all are content.
    """
    target = snapshot(submissions, frozen.record)
    if damage(target) is None:
        return
    made = beside(target)
    try:
        for name, content in frozen.files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _put(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put(made: Path, target: Path) -> None:
    """Move a copy to its place, in the place of a damaged one, until one is there, be it another's. Raises OSError."""
    while damage(target) is not None:
        damaged = beside(target)
        with contextlib.suppress(FileNotFoundError):
            target.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        try:
            made.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return


def damage(target: Path) -> str | None:
    """Say what is wrong with a stored copy; None if it is what its name says."""
    if not target.is_dir():
        return "is not there"
    try:
        return None if _name(_read(target, ".")) == target.name else "is not as it was stored"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def misread(target: Path, bundle: Bundle) -> str | None:
    """Say how a stored copy fails to read what its jobs are to be told; None if it reads it.

    It may be of an earlier version of this program, which does not know all that this one writes.
    """
    call = [sys.executable, "-c", _READ, str(target)]
    try:
        done = subprocess.run(call, input=to_json(bundle), capture_output=True, timeout=READ_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be asked: {error}"
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return None if done.returncode == 0 else (words or [f"exit code {done.returncode}"])[-1]


def beside(target: Path) -> Path:
    """Where a copy lies while it is made, or is on its way out."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}{UNFINISHED}")


def _read(root: Path, package: str) -> dict[str, bytes]:
    """Read the Python files of a package. An editor's lock, a link to nowhere, is none."""
    paths = [path for path in (root / package).rglob("*.py") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _name(files: Mapping[str, bytes]) -> str:
    """A name made of the files' names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]
