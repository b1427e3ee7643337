"""What is wrong on disk, in words: a finding, and reading files so that what is wrong with one becomes words."""

from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from trainer.records.base import SCHEMA_VERSION, Versioned
from trainer.records.files import ChecksumError, first_problem, from_json, schema_version

Record = TypeVar("Record", bound=Versioned)

NEWER = "use the version of sweep that wrote it, or a newer one"


class Kind(str, Enum):
    """What a finding is, in the order they are shown."""

    DAMAGED = "damaged"
    INCONSISTENT = "inconsistent"
    HALF_WRITTEN = "half-written"
    ORPHANED = "orphaned"


class Finding(NamedTuple):
    """Something wrong: where, relative to the sweep's folder, what, what to do, and the run it concerns."""

    kind: Kind
    path: str
    what: str
    remedy: str
    run: str | None = None


class Unusable(NamedTuple):
    """What is wrong with a file, and what would make it usable where it may itself be whole."""

    what: str
    cure: str | None = None


def read_or_say(path: Path, schema: type[Record]) -> Record | Unusable | None:
    """Read a record, or say what is wrong with its file; None if there is none."""
    content = read_bytes(path)
    if not isinstance(content, bytes):
        return content
    if not content.strip():
        return Unusable("is empty")
    try:
        return from_json(content, schema)
    except ChecksumError:
        return Unusable("is not as it was written: its checksum does not match")
    except ValidationError as error:
        version = schema_version(content)
        if version is not None and version > SCHEMA_VERSION:
            return Unusable(f"is of schema {version}, this version of sweep reads {SCHEMA_VERSION}", NEWER)
        return Unusable(f"is not what it should be: {first_problem(error)}")


def read_bytes(path: Path) -> bytes | Unusable | None:
    """Read a file, or say why that cannot be done; None if there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        return say(path, error)


def list_folder(path: Path) -> list[Path] | Unusable:
    """List a folder, or say why that cannot be done; an absent folder is empty."""
    try:
        return sorted(path.iterdir())
    except OSError as error:
        return say(path, error) or []


def say(path: Path, error: OSError) -> Unusable | None:
    """Put an error of the disk into words; None where there is nothing at the path."""
    match error:
        case FileNotFoundError():
            return Unusable("is a link to nothing") if path.is_symlink() else None
        case IsADirectoryError():
            return Unusable("is a folder, and a file should be there")
        case NotADirectoryError():
            return Unusable("is a file, and a folder should be there")
        case PermissionError():
            return Unusable("may not be read", "give yourself the right to read it (chmod u+rX), then verify again")
        case _:
            return Unusable(f"cannot be read: {error.strerror}")
