"""A checkpoint as a file: what it says of itself, and whether it is whole, found out without torch.

Owns the names of the files, their description and their checksum. `trainer.checkpoint.tensors` turns them into tensors.

The header is read here, not by safetensors (0.8): `safe_open` gives no tensor's bytes, without torch no bfloat16 at
all, maps the file, so that a failing file server kills the process, and its OSError has no errno to be patient by;
`deserialize` wants the whole file in memory, copies it once more and leaves out the metadata.
"""

import contextlib
import hashlib
import json
import math
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.records.files import patiently, schema_version
from trainer.records.result import History, Stretch
from trainer.records.run import Commitment, KeepCheckpoints

CHECKPOINT_SCHEMA: Literal[2] = 2  # 1 named its run by id alone
MOST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
CHUNK = 1 << 20
# safetensors' names of element types: as torch writes them, which is what the checksum covers, and their bytes.
ELEMENTS = {
    "F64": ("torch.float64", 8),
    "F32": ("torch.float32", 4),
    "F16": ("torch.float16", 2),
    "BF16": ("torch.bfloat16", 2),
    "I64": ("torch.int64", 8),
    "I32": ("torch.int32", 4),
    "I16": ("torch.int16", 2),
    "I8": ("torch.int8", 1),
    "U8": ("torch.uint8", 1),
    "BOOL": ("torch.bool", 1),
}


class CheckpointError(Exception):
    """A checkpoint that cannot be used, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class NewerCheckpointError(CheckpointError):
    """A whole checkpoint of a newer schema than this program's."""


class CheckpointInfo(BaseModel):
    """What a checkpoint says of itself.

    commitment: run, recipe and data it is of. history holds the epochs before it; seconds are those of that history,
    and stretches what computed them. threads: how many CPU threads the run began with; sums come out differently with
    another number, so it goes on with as many. scaler: the state of fp16's loss scale, empty in other formats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = CHECKPOINT_SCHEMA
    commitment: Commitment
    attempt: int
    history: History
    stretches: list[Stretch]
    train_seconds: float
    evaluation_seconds: float
    threads: int
    scaler: dict[str, int | float] = {}


class _Part(NamedTuple):
    """One tensor in the file: its name, torch's name of its type, its shape, its first byte and the one after it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def checkpoint_name(epochs: int) -> str:
    """Name the file of a checkpoint after so many epochs; names sort as epochs do."""
    return f"epoch-{epochs:06d}.safetensors"


def epochs_in(path: Path) -> int:
    """The epochs that a checkpoint's name says; 0 where it says none."""
    number = path.stem.removeprefix("epoch-")
    return int(number) if number.isdecimal() else 0


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoint files, newest first."""
    return sorted(folder.glob("epoch-*.safetensors"), reverse=True) if folder.is_dir() else []


def remove_needless(folder: Path, keep: KeepCheckpoints, epochs: int) -> None:
    """Remove what a run that is done after so many epochs needs no more; 'sweep clean' finds what cannot be removed."""
    final = folder / checkpoint_name(epochs) if keep == "final" else None
    for path in list_checkpoints(folder):
        if path != final:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def inspect(path: Path) -> CheckpointInfo:
    """Verify a checkpoint's checksum and read what it says of itself, a megabyte in memory at a time.

    Raises CheckpointError, and NewerCheckpointError for one that is whole but of a newer schema.
    """
    try:
        described = patiently(lambda: _verified(path))
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from error
    try:
        return CheckpointInfo.model_validate_json(described)
    except ValidationError as error:
        version = schema_version(described)
        if version is not None and version > CHECKPOINT_SCHEMA:
            words = f"is of schema {version}, this program reads {CHECKPOINT_SCHEMA}"
            raise NewerCheckpointError(path, words) from error
        raise CheckpointError(path, "not a checkpoint of this program") from error


def part_header(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """What the checksum covers of a tensor besides its bytes."""
    return f"{name} {dtype} {shape}".encode()


def _verified(path: Path) -> str:
    """Read the description that the checksum covers. Raises CheckpointError if it does not match, and OSError."""
    with path.open("rb") as file:
        try:
            metadata, parts, data = _read_header(file)
            described, expected = metadata["sweep"], metadata["sha256"]
            digest = hashlib.sha256(described.encode())
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CheckpointError(path, "not a checkpoint of this program, or damaged") from error
        for part in sorted(parts):
            digest.update(part_header(part.name, part.dtype, part.shape))
            _hash_bytes(digest, file, data + part.begin, data + part.end)
    if digest.hexdigest() != expected:
        raise CheckpointError(path, "damaged: its checksum does not match")
    return described


def _read_header(file: BinaryIO) -> tuple[dict[str, str], list[_Part], int]:
    """Read the metadata, the tensors and where their bytes begin. Raises ValueError and its like for a bad header."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MOST_HEADER, size - 8):
        raise ValueError("the header is longer than the file")
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__")
    parts = []
    for name, entry in header.items():
        dtype, width = ELEMENTS[entry["dtype"]]
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if end - begin != math.prod(shape) * width:
            raise ValueError(f"{name} has not the bytes of its shape")
        parts.append(_Part(name, dtype, shape, begin, end))
    at = 0
    for part in sorted(parts, key=lambda part: (part.begin, part.end)):
        if part.begin != at:
            raise ValueError("the tensors do not lie end to end")
        at = part.end
    if at != size - 8 - length:
        raise ValueError("the file does not end where its tensors do")
    return metadata, parts, 8 + length


def _hash_bytes(digest: Any, file: BinaryIO, begin: int, end: int) -> None:
    file.seek(begin)
    while begin < end:
        chunk = file.read(min(CHUNK, end - begin))
        if not chunk:
            return  # cut off meanwhile: the checksum will not match
        digest.update(chunk)
        begin += len(chunk)
