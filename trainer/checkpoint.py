"""Checkpoints: safetensors files that say what they are and prove that they are whole.

A checkpoint is taken between epochs only. Order, augmentation and dropout are functions of (seed, epoch), so weights,
optimiser state, loss scale and history are all there is to save. No pickle anywhere: torch.load is never called.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.checkpoint_file import CheckpointError, CheckpointInfo, checkpoint_name, list_checkpoints, part_header
from trainer.files import write_atomic

__all__ = ["Checkpoint", "CheckpointError", "CheckpointInfo", "list_checkpoints", "load", "newest_good", "save"]

KEPT = 2


class CheckpointMismatchError(CheckpointError):
    """A whole checkpoint of something else: another run, recipe or dataset."""


class Checkpoint(NamedTuple):
    """info and tensors by name, on the CPU."""

    info: CheckpointInfo
    tensors: dict[str, Tensor]


def save(folder: Path, info: CheckpointInfo, tensors: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint after info.history.epochs epochs; keep it and the one before. Raises OSError.

    Files of later epochs are what a run passed over before it came here a second time: they go first.
    """
    folder.mkdir(exist_ok=True)
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = info.model_dump_json()
    metadata = {"sweep": described, "sha256": _digest(described, on_cpu)}
    path = folder / checkpoint_name(info.history.epochs)
    write_atomic(path, safetensors.torch.save(on_cpu, metadata))
    there = list_checkpoints(folder)
    at = there.index(path)
    for other in (*there[:at], *there[at + KEPT :]):
        other.unlink(missing_ok=True)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its checksum. Raises CheckpointError saying what is wrong with it."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        info = CheckpointInfo.model_validate_json(metadata["sweep"])
        expected = metadata["sha256"]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    except (KeyError, ValidationError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program") from error
    if _digest(metadata["sweep"], tensors) != expected:
        raise CheckpointError(f"{path}: damaged: its checksum does not match")
    return Checkpoint(info, tensors)


def newest_good(
    folder: Path, *, run_id: str, training_hash: str, data_fingerprint: str
) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest checkpoint that is whole, and say which newer ones were passed over.

    Raises CheckpointMismatchError when a whole checkpoint belongs to something else.
    """
    passed_over = []
    wanted = {"run_id": run_id, "training_hash": training_hash, "data_fingerprint": data_fingerprint}
    for path in list_checkpoints(folder):
        try:
            checkpoint = load(path)
        except CheckpointError as error:
            passed_over.append(str(error))
            continue
        for field, value in wanted.items():
            found = getattr(checkpoint.info, field)
            if found != value:
                raise CheckpointMismatchError(f"{path}: is of another run: {field} is {found}, this run has {value}")
        return checkpoint, passed_over
    return None, passed_over


def _digest(described: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash the description and every tensor with its name, type and shape."""
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(part_header(name, str(tensor.dtype), tuple(tensor.shape)))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
