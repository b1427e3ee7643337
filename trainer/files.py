"""The one atomic writer, and reading back what it wrote.

Owns how bytes reach the disk so that no reader, on any node, ever sees half a file. Knows nothing of what is in them
beyond JSON and pydantic.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

UNFINISHED = ".tmp"


class RecordError(Exception):
    """A file that is there but cannot be taken at its word: unreadable, not JSON, or not of its schema."""


def write_atomic(path: Path, content: bytes) -> None:
    """Put content at path so that a reader sees the old file or the new one, also after a power cut.

    The folder must exist. Raises OSError; nothing is left behind then.
    """
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_exclusive(path: Path, content: bytes) -> bool:
    """Put content at path only if nothing is there; of several callers, on any nodes, exactly one gets True.

    A hard link is the one exclusive creation that NFS honours and that shows the file whole from its first instant.
    When the server's answer is lost, the link count tells whether the link was made.
    """
    temporary = _write_beside(path, content)
    try:
        os.link(temporary, path)
        created = True
    except OSError as error:
        created = temporary.stat().st_nlink == 2
        if not created and not isinstance(error, FileExistsError):
            raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return created


def clear_unfinished(folder: Path) -> None:
    """Remove what killed writers left half-written in a folder. For the folder's owner: it unmakes others' writes."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a rename is on the disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, record: BaseModel) -> None:
    """Write a record atomically as readable JSON."""
    write_atomic(path, to_json(record))


def to_json(record: BaseModel) -> bytes:
    """Give a record as UTF-8 JSON: keys in the order of the schema, no NaN or Infinity."""
    document = record.model_dump(mode="json")
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, schema: type[Model]) -> Model | None:
    """Read a record back; None if there is no such file. Raises RecordError if it is not what it should be."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: damaged: {where + ': ' if where else ''}{_reason(first)}") from error


def _reason(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _write_beside(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
