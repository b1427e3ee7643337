"""Checkpoints: safetensors files that say what they are and prove that they are whole.

A checkpoint is taken between epochs only. Order, augmentation and dropout are functions of (seed, epoch), so weights,
optimiser state, loss scale and history are all there is to save. No pickle anywhere: torch.load is never called.
"""

import errno
import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trainer.records.base import difference
from trainer.records.checkpoint_file import (
    CheckpointError,
    CheckpointInfo,
    NewerCheckpointError,
    checkpoint_name,
    inspect,
    list_checkpoints,
    part_header,
)
from trainer.records.files import patiently, write_atomic
from trainer.records.run import Commitment, other_work

__all__ = ["Checkpoint", "CheckpointError", "CheckpointInfo", "list_checkpoints", "load", "newest_good", "save"]

KEPT = 2


class CheckpointMismatchError(CheckpointError):
    """A whole checkpoint of something else: another run, recipe, dataset or network."""


class Checkpoint(NamedTuple):
    """Where it lies, what it says of itself, and its tensors by name, on the CPU."""

    path: Path
    info: CheckpointInfo
    tensors: dict[str, Tensor]


def save(
    folder: Path, info: CheckpointInfo, tensors: Mapping[str, Tensor], *, passed_over: Collection[Path] = ()
) -> Path:
    """Write a checkpoint after info.history.epochs epochs, read it back, and only then let older ones go.

    tensors: contiguous, on the CPU. The one before stays too. Those of later epochs are left alone, for another owner
    of the run may have come that far, except the ones this attempt has passed over. Raises OSError.
    """
    folder.mkdir(exist_ok=True)
    path = folder / checkpoint_name(info.history.epochs)
    described = info.model_dump_json()
    metadata = {"sweep": described, "sha256": _digest(described, tensors)}
    content = safetensors.torch.save(dict(tensors), metadata)
    patiently(lambda: _write_verified(path, content))
    there = list_checkpoints(folder)
    before = there[there.index(path) + 1 :] if path in there else []
    for other in {*before[KEPT - 1 :], *passed_over} - {path}:
        other.unlink(missing_ok=True)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its checksum. Raises CheckpointError saying what is wrong with it."""
    info = inspect(path)
    try:
        return Checkpoint(path, info, safetensors.torch.load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"cannot be read: {error}") from error


def newest_good(folder: Path, commitment: Commitment) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Load the newest checkpoint that is whole, and say which newer ones were passed over and why.

    Raises CheckpointMismatchError when a whole checkpoint belongs to something else, and NewerCheckpointError.
    """
    passed_over = {}
    for path in list_checkpoints(folder):
        try:
            checkpoint = load(path)
        except NewerCheckpointError:
            raise
        except CheckpointError as error:
            passed_over[path] = str(error)
            continue
        found = checkpoint.info.commitment
        other = difference((commitment.run, commitment.training, commitment), (found.run, found.training, found))
        if other and other_work(found, commitment, commitment.data_fingerprint):
            words = f"is of something else: its {other.name} is {other.theirs}, this run's is {other.mine}"
            raise CheckpointMismatchError(path, f"{words}; move it away, or use another folder")
        return checkpoint, passed_over
    return None, passed_over


def _write_verified(path: Path, content: bytes) -> None:
    """Write a checkpoint and read it back. Raises OSError, also where it does not come back as it was written."""
    write_atomic(path, content)
    try:
        inspect(path)
    except CheckpointError as error:
        raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}; read back, {error}", str(path)) from error


def _digest(described: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash the description and every tensor with its name, type and shape."""
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(part_header(name, str(tensor.dtype), tuple(tensor.shape)))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
