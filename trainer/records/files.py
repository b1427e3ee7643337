"""The one atomic writer, and reading back what it wrote.

Owns how bytes reach the disk so that no reader, on any node, ever sees half a file, and what a disk's errors mean.
Knows nothing of what is in the files beyond JSON and pydantic.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

UNFINISHED = ".tmp"
OPENING = b"{\n"
SEAL_BYTES = 40  # that hold the checksum's key, also where blanks were put in or taken out
SEAL = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')
PASSING = (errno.ESTALE, errno.EIO)  # what a file server answers that has been restarted or has lost its thread
PATIENCE_S = (0.1, 0.3, 1.0, 3.0)  # before each further try of a write, or of a read that much depends on
GLANCE_S = PATIENCE_S[:2]  # of a read that has a person waiting
DISK_TROUBLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "writing is not allowed any more",
    errno.ENOENT: "the folder has vanished",
    errno.ENOTDIR: "the folder has vanished",
    errno.ESTALE: "the file server has lost the folder",
    errno.EIO: "the disk or its file server fails",
}


class ChecksumError(Exception):
    """A record that is not as it was written."""


class RecordError(Exception):
    """A file that is there but cannot be taken at its word: unreadable, not JSON, or not of its schema."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def patiently(action: Callable[[], T], waits_s: Sequence[float] = PATIENCE_S) -> T:
    """Do something with files, again after a while where the error is one that passes. Raises OSError in the end."""
    for wait_s in waits_s:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(wait_s)
    return action()


def write_atomic(path: Path, content: bytes) -> None:
    """Put content at path so that a reader sees the old file or the new one, also after a power cut.

    The folder must exist. Raises OSError; nothing is left behind then.
    """
    patiently(lambda: _replace(path, content))


def create_exclusive(path: Path, content: bytes) -> bool:
    """Put content at path only if nothing is there; of several callers, on any nodes, exactly one gets True.

    A hard link is the one exclusive creation that NFS honours and that shows the file whole from its first instant.
    When the server's answer is lost, what lies there tells whether the link was made: no two callers' contents may be
    equal.
    """
    return patiently(lambda: _link(path, content))


def clear_unfinished(folder: Path) -> None:
    """Remove what killed writers left half-written in a folder. For the folder's owner: it unmakes others' writes."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a rename is on the disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(folder / ".")
        raise
    finally:
        os.close(descriptor)


def write_json(path: Path, record: BaseModel) -> None:
    """Write a record atomically as readable JSON."""
    write_atomic(path, to_json(record))


def to_json(record: BaseModel) -> bytes:
    """Turn a record into UTF-8 JSON: keys in the order of the schema, no NaN or Infinity.

    The first line holds the checksum of all that follows it: a number that was changed would still be a number.
    """
    document = record.model_dump(mode="json")
    rest = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()[len(OPENING) :]
    return OPENING + b' "sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode() + rest


def from_json(content: bytes, schema: type[Model]) -> Model:
    """Read a record, one without a checksum too. Raises ChecksumError and ValidationError."""
    sealed = SEAL.match(content)
    if sealed:
        rest = content[sealed.end() :]
        if hashlib.sha256(rest).hexdigest() != sealed[1].decode():
            raise ChecksumError("its checksum does not match, so it is not as it was written")
        content = OPENING + rest
    elif b'"sha256"' in content[:SEAL_BYTES]:
        raise ChecksumError("its checksum is not where it was written")
    return schema.model_validate_json(content)


def read_json(path: Path, schema: type[Model]) -> Model | None:
    """Read a record back; None if there is no such file. Raises RecordError if it is not what it should be."""
    try:
        content = patiently(path.read_bytes, GLANCE_S)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(path, f"cannot be read: {error.strerror}") from error
    try:
        return from_json(content, schema)
    except ChecksumError as error:
        raise RecordError(path, f"damaged: {error}") from error
    except ValidationError as error:
        raise RecordError(path, f"damaged: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """In words, the first thing that does not fit a schema, and where."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {reason(first)}" if where else reason(first)


def reason(problem: Mapping[str, Any]) -> str:
    """What pydantic found wrong; of an error that our own check raised, its own words."""
    return str(problem["ctx"]["error"] if problem["type"] == "value_error" else problem["msg"])


def schema_version(content: bytes | str) -> int | None:
    """The schema that a record says it is of, also where this program cannot read it; None where it says none."""
    try:
        version = json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, int) else None


def disk_trouble(error: BaseException, folder: Path) -> str | None:
    """In words, what is wrong with the disk a folder is on; None for an error that is not that disk's."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return None
    if error.errno not in DISK_TROUBLE or not Path(error.filename).is_relative_to(folder):
        return None
    return f"{DISK_TROUBLE[error.errno]} ({folder}: {error.strerror})"


class Reserve:
    """Room on the disk for the last word of a process, held as a file: a full disk can still be told of.

    Raises OSError where there is no room even for that. What a killed process held is an unfinished file like others.
    """

    SIZE = 64 * 1024  # a traceback in error.json, an attempt's record, the log's last lines

    def __init__(self, folder: Path) -> None:
        self.path = _write_beside(folder / "reserve", os.urandom(self.SIZE))  # not zeros, which some disks do not store

    def release(self) -> None:
        """Let go of the room."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def _replace(path: Path, content: bytes) -> None:
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    except OSError:
        _forget(temporary)
        raise
    sync_folder(path.parent)


def _link(path: Path, content: bytes) -> bool:
    temporary = _write_beside(path, content)
    try:
        os.link(temporary, path)
    except OSError as error:
        ours = path.exists() and path.read_bytes() == content
        if not ours and not isinstance(error, FileExistsError):
            raise
        return ours
    finally:
        _forget(temporary)
    sync_folder(path.parent)
    return True


def _forget(temporary: Path) -> None:
    """Remove what could not be finished, if the disk lets it: the error that matters is another."""
    with contextlib.suppress(OSError):
        temporary.unlink()


def _write_beside(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _forget(temporary)
        error.filename = error.filename or str(temporary)  # write and fsync do not say which file
        raise
    return temporary
