"""Drawn datasets: official in layout, synthetic in name, the same for a seed, and worth learning from."""

import pickle
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.prepare import prepare
from trainer.data.prepared import DataError, open_dataset
from trainer.data.synthesize import synthesize


@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet"])
def test_a_seed_gives_the_same_archive_byte_for_byte_and_another_seed_another(dataset: str, tmp_path: Path) -> None:
    """Two people with the same seed train on the same drawn data."""
    first, again = (
        synthesize(dataset, tmp_path / name, train=40, val=20, seed=7).read_bytes() for name in ("first", "again")
    )
    other = synthesize(dataset, tmp_path / "other", train=40, val=20, seed=8).read_bytes()
    assert first == again
    assert first != other


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("tinyimagenet", 20)])
def test_a_drawn_dataset_says_synthetic_everywhere_and_is_balanced(dataset: str, classes: int, tmp_path: Path) -> None:
    """Nobody can take drawn data for real data: its file, its classes and its manifest say what it is."""
    archive = synthesize(dataset, tmp_path / "a folder", train=5 * classes + 3, val=2 * classes)
    manifest, _ = prepare(dataset, str(archive), tmp_path / "data", unofficial=True)
    prepared = open_dataset(tmp_path / "data", dataset)
    assert archive.name.startswith("synthetic-")
    assert manifest.synthetic
    assert not manifest.official
    assert len(manifest.classes) == classes
    assert all(name.startswith("synthetic") for name in manifest.classes)
    assert set(np.bincount(prepared.labels("train"))) == {5, 6}
    assert set(np.bincount(prepared.labels("val"))) == {2}


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_the_ordinary_reader_opens_drawn_cifar_batches(encoding: str, tmp_path: Path) -> None:
    """Code written for the official archive (torchvision's, the one on CIFAR's page) reads the drawn one as well."""
    archive = synthesize("cifar10", tmp_path, train=50, val=10)
    with tarfile.open(archive) as opened:
        member = opened.extractfile("cifar-10-batches-py/data_batch_2")
        assert member is not None
        batch = pickle.load(member, encoding=encoding)  # noqa: S301  written by ourselves a line above
    data, labels, names = (key if encoding == "latin1" else key.encode() for key in ("data", "labels", "filenames"))
    assert batch[data].shape == (10, 3072)
    assert batch[data].dtype == np.uint8
    assert len(batch[labels]) == len(batch[names]) == 10
    prepare("cifar10", str(archive), tmp_path / "data", unofficial=True)
    prepared = open_dataset(tmp_path / "data", "cifar10")
    np.testing.assert_array_equal(prepared.images("train")[10:20].reshape(10, -1), batch[data])
    assert prepared.labels("train")[10:20].tolist() == batch[labels]


def test_drawn_tinyimagenet_has_the_official_layout(tmp_path: Path) -> None:
    """A reader of the official zip finds the files where it looks for them, as 64×64 JPEG images."""
    archive = synthesize("tinyimagenet", tmp_path, train=9, val=3, classes=3)
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
        image = Image.open(BytesIO(opened.read("tiny-imagenet-200/train/synthetic001/images/synthetic001_2.JPEG")))
        annotation = opened.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()[0].split("\t")
    assert {f"tiny-imagenet-200/{name}" for name in ("wnids.txt", "words.txt", "val/images/val_2.JPEG")} <= names
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
    assert annotation[0] == "val_0.JPEG"
    assert len(annotation) == 6


def test_drawn_classes_can_be_told_apart_but_not_at_a_glance(tmp_path: Path) -> None:
    """Something is to be learned, and not by colour alone: the nearest mean image beats chance and stays far from all.

    A network needs minutes to show it, so here is a classifier of a second, whose accuracy must lie well between chance
    (10 %) and a task that is none.
    """
    archive = synthesize("cifar10", tmp_path, train=2000, val=500)
    prepare("cifar10", str(archive), tmp_path / "data", unofficial=True)
    prepared = open_dataset(tmp_path / "data", "cifar10")
    train, val = (prepared.images(split).reshape(-1, 3072) / np.float32(255) for split in ("train", "val"))
    train_labels, val_labels = prepared.labels("train"), prepared.labels("val")
    means = np.stack([train[train_labels == label].mean(0) for label in range(10)])
    # |v - m|² without |v|², which is the same for every mean.
    nearest = ((means**2).sum(1) - 2 * val @ means.T).argmin(1)
    accuracy = float((nearest == val_labels).mean())
    assert 0.18 < accuracy < 0.7


@pytest.mark.parametrize(
    ("dataset", "numbers", "says"),
    [
        ("cifar10", {"train": 9, "val": 5}, "too few for 10 classes; choose"),
        ("cifar10", {"train": 50, "val": 0}, "too few for 10 classes; choose"),
        ("cifar10", {"train": 50, "val": 5, "classes": 3}, "always has 10 classes, not 3; leave them out"),
        ("tinyimagenet", {"train": 500, "val": 5, "classes": 201}, "2 to 200 classes, not 201; choose"),
        ("tinyimagenet", {"train": 500, "val": 5, "classes": 1}, "2 to 200 classes, not 1; choose"),
        ("mnist", {"train": 500, "val": 5}, "mnist: no such dataset; there are cifar10, tinyimagenet"),
    ],
)
def test_numbers_that_make_no_dataset_are_refused(
    dataset: str, numbers: dict[str, int], says: str, tmp_path: Path
) -> None:
    """Impossible wishes end in one sentence, before anything is drawn or written."""
    with pytest.raises(DataError, match=says):
        synthesize(dataset, tmp_path / "out", **numbers)  # type: ignore[arg-type]  # seed is not among them
    assert not (tmp_path / "out").exists()
