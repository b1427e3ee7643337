"""The code of a submission's jobs, frozen: stored once by content, under submissions/code/.

What is edited, checked out or deleted after a submission changes nothing for its jobs. Only the interpreter and what is
installed stay where they are. Of our packages a job needs these two, beside them modules of the user's own, and of all
of them nothing but Python files.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import cache_from_source
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


class Compiled(NamedTuple):
    """What Python made of a file, good beside one of this time of modification, in ns, and ignored otherwise."""

    content: bytes
    mtime_ns: int


class FrozenCode(NamedTuple):
    """Packages as they stood at one moment: their files by relative path, and the record that names them.

    compiled: what Python has made of some of the files; it saves every first job on a node most of a second.
    """

    record: Code
    files: Mapping[str, bytes]
    compiled: Mapping[str, Compiled] = {}


def freeze(root: Path = ROOT, own: Sequence[Path] = ()) -> FrozenCode:
    """Read our packages, which lie in a folder, and modules of the user's own: files and folders. Raises OSError."""
    paths = {name: path for package in PACKAGES for name, path in _python_files(root, package).items()}
    mine = {name: path for module in own for name, path in _python_files(module.parent, module.name).items()}
    paths |= mine
    compiled = {name: made for name, path in paths.items() if (made := _compiled(path)) is not None}
    files = {name: path.read_bytes() for name, path in paths.items()}
    files[STARTER] = _START
    commit, dirty = git_state(root / PACKAGES[0])
    own_name = _name({name: files[name] for name in mine}) if own else None
    record = Code(snapshot=_name(files), commit=commit, dirty=dirty, own=own_name)
    return FrozenCode(record, files, compiled)


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
        for name, compiled in frozen.compiled.items():
            _keep_compiled(made / name, compiled)
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
    call = [sys.executable, "-B", "-c", _READ, str(target)]
    try:
        done = subprocess.run(call, input=to_json(bundle), capture_output=True, timeout=READ_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be asked: {error}"
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return None if done.returncode == 0 else (words or [f"exit code {done.returncode}"])[-1]


def beside(target: Path) -> Path:
    """Where a copy lies while it is made, or is on its way out."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}{UNFINISHED}")


def _python_files(root: Path, package: str) -> dict[str, Path]:
    """A package's or single module's Python files, by relative path. A link to nowhere, an editor's lock, is none."""
    place = root / package
    paths = place.rglob("*.py") if place.is_dir() else [place]
    return {path.relative_to(root).as_posix(): path for path in paths if path.is_file()}


def _read(root: Path, package: str) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in _python_files(root, package).items()}


def _compiled(path: Path) -> Compiled | None:
    """What this Python keeps of a file it has compiled, if it does."""
    try:
        mtime_ns = path.stat().st_mtime_ns  # read first: of a file that changes now, nothing is taken to be good
        return Compiled(Path(cache_from_source(path)).read_bytes(), mtime_ns)
    except OSError:
        return None


def _keep_compiled(path: Path, compiled: Compiled) -> None:
    """Put beside a stored file what Python made of it. It looks whether it fits by the file's size and time."""
    kept = Path(cache_from_source(path))
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(compiled.content)
    os.utime(path, ns=(compiled.mtime_ns, compiled.mtime_ns))


def _name(files: Mapping[str, bytes]) -> str:
    """A name made of the files' names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]
