"""Checkpoints: whole or passed over, this run's or refused, and training goes on from one as if nothing had been."""

import ast
import hashlib
import os
import re
import shutil
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_fixtures import MINE, info_of
from permissions import permissions_kept
from safetensors.torch import save_file
from torch import Tensor
from training_fixtures import make_trainer, random_split, train_epochs

from trainer.checkpoint import tensors as checkpoint
from trainer.checkpoint.tensors import (
    KEPT,
    CheckpointError,
    CheckpointMismatchError,
    list_checkpoints,
    load,
    newest_good,
    save,
)
from trainer.checkpoint.writer import CheckpointWriter
from trainer.loop.trainer import StateError, Trainer
from trainer.records.checkpoint_file import CHECKPOINT_SCHEMA, NewerCheckpointError, part_header
from trainer.records.recipe import Recipe
from trainer.records.result import History

TENSORS = {
    "weights": torch.arange(12.0).reshape(3, 4),
    "moment": torch.arange(48.0).reshape(2, 2, 3, 4),
    "step": torch.tensor(7.0),
    "tracked": torch.tensor(3),
    "half": torch.tensor([1.5, -2.5], dtype=torch.bfloat16),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the checkpoints of 5 and of 9 epochs."""
    path = tmp_path / "run, 50% 'ünïcode'" / "checkpoints"
    path.parent.mkdir()
    for epochs in (5, 9):
        save(path, info_of(epochs), {name: tensor + epochs for name, tensor in TENSORS.items()})
    return path


def header_end(content: bytes) -> int:
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def flip_in_tensors(path: Path) -> None:
    flip(path, header_end(path.read_bytes()) + 17, bit=3)


def flip_in_header(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"dtype":"F32"') + 10)


def flip_in_metadata(path: Path) -> None:
    flip(path, path.read_bytes().index(b"12.5"))


def flip_in_checksum(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"sha256":"') + 20)


def put_another_file(path: Path) -> None:
    path.write_bytes(b"\x80\x04not safetensors" * 100)


def put_foreign_safetensors(path: Path) -> None:
    save_file({"weights": torch.zeros(3)}, path)


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def truncate_to(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": truncate_to(0),
    "truncated in the header": truncate_to(0.1),
    "truncated in the tensors": truncate_to(0.95),
    "a bit in a tensor": flip_in_tensors,
    "a bit in the header": flip_in_header,
    "a bit in the metadata": flip_in_metadata,
    "a bit in the checksum": flip_in_checksum,
    "a bit in the header's length": lambda path: flip(path, 6, bit=7),
    "something else": put_another_file,
    "another program's safetensors": put_foreign_safetensors,
    "a folder": put_a_folder,
    "a dead link": put_a_dead_link,
}


def test_what_is_saved_is_what_is_loaded(folder: Path) -> None:
    """Every tensor bit for bit with its type and shape, and all that the checkpoint says of itself, scale included."""
    info = info_of(10, attempt=3, scaler={"scale": 1024.0})
    loaded = load(save(folder, info, TENSORS))
    assert loaded.info == info
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype


def test_training_goes_on_from_the_newest(folder: Path) -> None:
    """Of two whole checkpoints the one with more epochs is taken, and nothing is passed over."""
    found, passed_over = newest_good(folder, MINE)
    assert found is not None
    assert (found.path, found.info, passed_over) == (list_checkpoints(folder)[0], info_of(9), {})
    assert found.tensors["step"].item() == 16


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_older_and_named(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    """Whatever became of the newest file, the older one is taken, and what was passed over is said with its path."""
    newest, older = list_checkpoints(folder)
    damage(newest)
    with pytest.raises(CheckpointError):
        load(newest)
    found, passed_over = newest_good(folder, MINE)
    assert found is not None
    assert found.info == info_of(5)
    assert torch.equal(found.tensors["weights"], TENSORS["weights"] + 5)
    assert list(passed_over) == [newest]
    assert passed_over[newest].startswith(f"{newest}: ")
    damage(older)
    found, passed_over = newest_good(folder, MINE)
    assert found is None
    assert list(passed_over) == [newest, older]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    """One bit in each byte of a small file, header, description and tensors: a CheckpointError, nothing else."""
    path = save(tmp_path, info_of(1), {"w": torch.tensor([1.0, 2.0])})
    content = path.read_bytes()
    unharmed = load(path)
    missed = []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = load(path)
        except CheckpointError:
            continue
        # A space of padding that became another blank changes nothing; anything else must be caught.
        if found.info != unharmed.info or not torch.equal(found.tensors["w"], unharmed.tensors["w"]):
            missed.append(position)
    assert missed == []


def test_an_unreadable_checkpoint_is_passed_over(folder: Path) -> None:
    """A file that may not be read is named, and the older one taken."""
    newest, _ = list_checkpoints(folder)
    newest.chmod(0)
    with permissions_kept():
        found, passed_over = newest_good(folder, MINE)
    newest.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert found is not None
    assert found.info == info_of(5)
    assert "cannot be read" in passed_over[newest]


@pytest.mark.parametrize("exists", [True, False])
def test_without_checkpoints_training_starts_anew(tmp_path: Path, exists: bool) -> None:
    """No folder, or an empty one, is no error and nothing to mention."""
    folder = tmp_path / "checkpoints"
    if exists:
        folder.mkdir()
    assert newest_good(folder, MINE) == (None, {})
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder / "epoch-000001.safetensors")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"run": MINE.run.model_copy(update={"id": "other"})}, f"its id is {MINE.run.id}, this run's is other"),
        (
            {"run": MINE.run.model_copy(update={"architecture": "vit"})},
            "its architecture is resnet18, this run's is vit",
        ),
        ({"run": MINE.run.model_copy(update={"seed": 43})}, "its seed is 42, this run's is 43"),
        ({"training": Recipe(epochs=10)}, "its epochs is 9, this run's is 10"),
        ({"training": Recipe(epochs=9, dropout=0.5)}, "its dropout is 0.2, this run's is 0.5"),
        ({"data_fingerprint": "other"}, f"its data_fingerprint is {'b' * 64}, this run's is other"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_the_field(
    folder: Path, wanted: dict[str, Any], words: str
) -> None:
    """Another run's, recipe's or dataset's checkpoint is no damage: it is refused, naming field and both values."""
    with pytest.raises(CheckpointMismatchError) as refused:
        newest_good(folder, MINE.model_copy(update=wanted))
    assert words in str(refused.value)
    assert str(list_checkpoints(folder)[0]) in str(refused.value)


def test_a_checkpoint_of_a_newer_schema_is_refused(folder: Path) -> None:
    """What a newer version wrote is whole: going on from an older one would throw its epochs away."""
    described = info_of(10).model_dump_json().replace(f'"schema_version":{CHECKPOINT_SCHEMA}', '"schema_version":9', 1)
    digest = hashlib.sha256(described.encode())
    digest.update(part_header("w", "torch.float32", (2,)) + struct.pack("<2f", 1, 2))
    metadata = {"sweep": described, "sha256": digest.hexdigest()}
    save_file({"w": torch.tensor([1.0, 2.0])}, folder / "epoch-000010.safetensors", metadata)
    with pytest.raises(NewerCheckpointError, match="is of schema 9, this program reads 2"):
        newest_good(folder, MINE)


def test_only_two_are_kept_and_nothing_else_is_touched(folder: Path) -> None:
    """The newest two stay; other files, whatever they are called, are not this module's to delete."""
    others = ["notes.txt", "epoch-000001.safetensors.bak", "weights.safetensors", ".epoch-000002.safetensors"]
    for name in others:
        (folder / name).write_text("mine")
    for epochs in (10, 11, 12):
        path = save(folder, info_of(epochs), TENSORS)
        assert list_checkpoints(folder)[0] == path
        assert len(list_checkpoints(folder)) == KEPT == 2
    expected = {*others, "epoch-000011.safetensors", "epoch-000012.safetensors"}
    assert {path.name for path in folder.iterdir()} == expected
    assert all((folder / name).read_text() == "mine" for name in others)


def test_a_checkpoint_just_saved_replaces_the_damaged_ones_that_were_passed_over(folder: Path) -> None:
    """A run that had to start anew because its checkpoints were damaged can be stopped again and goes on."""
    for path in list_checkpoints(folder):
        truncate_to(0.5)(path)
    _, passed_over = newest_good(folder, MINE)
    saved = save(folder, info_of(2), TENSORS, passed_over=passed_over)
    found, _ = newest_good(folder, MINE)
    assert list_checkpoints(folder) == [saved]
    assert found is not None
    assert found.info == info_of(2)


def test_a_checkpoint_that_cannot_be_written_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the error comes out, no half file is left, and the older checkpoints are as they were."""
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(folder, info_of(10), TENSORS)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_owner_that_is_behind_leaves_the_later_checkpoints_of_another(folder: Path) -> None:
    """One that was thought dead, comes back and ends its write does not unmake what its successor has saved."""
    later = list_checkpoints(folder)
    saved = save(folder, info_of(3), TENSORS)
    assert list_checkpoints(folder) == [*later, saved]


def test_the_older_checkpoint_goes_only_when_the_newer_was_read_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives other bytes back than it was given costs the new checkpoint, not the ones before."""
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def lose_a_byte(path: Path, content: bytes) -> None:
        path.write_bytes(content[:-1])

    monkeypatch.setattr(checkpoint, "write_atomic", lose_a_byte)
    monkeypatch.setattr(checkpoint, "patiently", lambda action: action())
    with pytest.raises(OSError, match="read back"):
        save(folder, info_of(10), TENSORS)
    assert before.items() <= {path: path.read_bytes() for path in folder.iterdir()}.items()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """However slow the disk, saving waits for a copy alone: what is written is the state as it was handed over."""
    disk = threading.Event()

    def may_write() -> None:
        assert disk.wait(10), "saving waits for the disk"

    writer = CheckpointWriter(tmp_path, may_write)
    state = {name: tensor.clone() for name, tensor in TENSORS.items()}
    writer.save(info_of(1), state)
    for tensor in state.values():
        tensor.add_(1)
    assert not writer.wait(timeout_s=0)
    assert list(tmp_path.iterdir()) == []
    disk.set()
    writer.close()
    found, _ = newest_good(tmp_path, MINE)
    assert found is not None
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert re.fullmatch(r"1 checkpoints: held training up for \S+ s, took \S+ s of a core beside it", str(writer))


def test_checkpoints_can_be_moved(folder: Path, tmp_path: Path) -> None:
    """No path is written into a file: a run's folder may be renamed or copied elsewhere."""
    for path in list_checkpoints(folder):
        assert str(tmp_path).encode() not in path.read_bytes()
        assert b"/" not in path.read_bytes()[: header_end(path.read_bytes())]
    moved = shutil.move(folder, tmp_path / "elsewhere")
    found, _ = newest_good(Path(moved), MINE)
    assert found is not None
    assert found.info == info_of(9)


def test_nothing_is_unpickled() -> None:
    """A checkpoint is someone's file: the module neither imports pickle nor calls torch.load or torch.save."""
    tree = ast.parse(Path(checkpoint.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if "pickle" in name or name in ("marshal", "shelve", "joblib", "dill")}
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {"torch.load", "torch.save"}


RECIPE: dict[str, Any] = {"replicas": 2, "batch_size": 4, "lr_milestones": (1,), "dropout": 0.2, "augmentation": True}


def small_trainer(architecture: str, precision: str = "fp32") -> Trainer:
    return make_trainer(
        architecture, train=random_split(19), val=random_split(6, seed=1), precision=precision, **RECIPE
    )


def through_a_file(trainer: Trainer, folder: Path, precision: str = "fp32") -> Trainer:
    """Save a trainer beside another epoch of it, and give another one that was restored from the file."""
    writer = CheckpointWriter(folder, lambda: None)
    info = info_of(
        0,
        history=trainer.history,
        train_seconds=trainer.train_seconds,
        evaluation_seconds=trainer.evaluation_seconds,
        scaler=trainer.scaler_state(),
    )
    writer.save(info, trainer.state())
    train_epochs(trainer, 1)  # what is written meanwhile is the state that was handed over
    writer.close()
    found, _ = newest_good(folder, MINE)
    assert found is not None
    architecture = "vit" if hasattr(trainer.model, "class_token") else "resnet18"
    torch.manual_seed(trainer.epoch)  # another process has drawn other things
    restored = small_trainer(architecture, precision)
    restored.restore(
        found.tensors,
        found.info.history,
        train_seconds=found.info.train_seconds,
        evaluation_seconds=found.info.evaluation_seconds,
        scaler=found.info.scaler,
    )
    return restored


def numbers(history: History) -> dict[str, list[float]]:
    return history.model_dump(exclude={"epoch_seconds"})


def everything(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.state().items()}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_a_run_restored_after_every_epoch_is_bit_for_bit_the_uninterrupted_one(
    architecture: str, tmp_path: Path
) -> None:
    """History, weights, buffers and moments are equal to the last bit, with dropout, augmentation, a falling rate."""
    expected = train_epochs(small_trainer(architecture), 3)
    found = small_trainer(architecture)
    for _ in range(3):
        found = train_epochs(through_a_file(found, tmp_path) if found.epoch else found, 1)
    assert numbers(found.history) == numbers(expected.history)
    assert found.history.epochs == 3
    assert found.train_seconds == pytest.approx(sum(found.history.epoch_seconds) - found.evaluation_seconds, abs=0.01)
    states = everything(found), everything(expected)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_fp16_s_loss_scale_goes_on_where_it_was(tmp_path: Path) -> None:
    """The scale is part of the state: a restored run scales as the uninterrupted one, not as a new one."""
    trainer = train_epochs(small_trainer("vit", "fp16"), 1)
    trainer.scaler.update(512.0)
    expected = trainer.scaler_state()
    restored = through_a_file(trainer, tmp_path, "fp16")
    assert restored.scaler_state() == expected
    assert restored.scaler_state()["scale"] == 512.0
    assert restored.scaler_state()["_growth_tracker"] == trainer.steps
    assert numbers(train_epochs(restored, 1).history) == numbers(trainer.history)


@pytest.mark.slow
def test_a_format_without_a_loss_scale_takes_none_from_a_checkpoint() -> None:
    """What was fp16 on one device and goes on as fp32 on another does not scale its losses."""
    trainer = train_epochs(small_trainer("vit", "fp16"), 1)
    restored = small_trainer("vit", "fp32")
    timing = {"train_seconds": 0.0, "evaluation_seconds": 0.0}
    restored.restore(everything(trainer), trainer.history, scaler=trainer.scaler_state(), **timing)
    assert restored.scaler_state() == {}


@pytest.mark.slow
def test_tensors_of_another_network_are_refused() -> None:
    """A checkpoint that does not fit the model is an error, never a run with some of its weights."""
    trainer = small_trainer("resnet18")
    timing = {"train_seconds": 0.0, "evaluation_seconds": 0.0, "scaler": {}}
    with pytest.raises(StateError, match=r"holds no model\.conv1\.weight"):
        trainer.restore({}, History(), **timing)
    tensors = everything(train_epochs(small_trainer("resnet18"), 1))
    tensors["model.fc.weight"] = torch.zeros(11, 512)
    with pytest.raises(StateError, match=r"its model\.fc\.weight has the shape \(11, 512\), the network's \(10, 512\)"):
        trainer.restore(tensors, History(), **timing)
