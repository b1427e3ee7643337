"""Draw datasets in the official layouts: small, learnable, and marked as synthetic wherever a name shows.

The quickstart and the tests use them through the same code as real data. A class is a shape, a texture and a colour;
its images differ in place, size, rotation, shade, background and noise. Does not read them.
"""

import io
import itertools
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from gzip import GzipFile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data import cifar10, tinyimagenet
from trainer.data.catalog import DATASETS
from trainer.data.prepared import SYNTHETIC_MARKER, DataError
from trainer.records.files import write_atomic

Floats = npt.NDArray[np.float64]

_SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    # Signed distance to the outline, negative inside; the outline is about 1 from the centre. x, y: shape coordinates.
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) - 0.85,
    "triangle": lambda x, y: np.maximum(0.87 * abs(x) + 0.5 * y, -y) - 0.6,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) - 0.28,
    "cross": lambda x, y: np.maximum(np.minimum(abs(x), abs(y)) - 0.32, np.maximum(abs(x), abs(y)) - 1),
    "star": lambda x, y: np.hypot(x, y) - 0.72 - 0.35 * np.cos(5 * np.arctan2(y, x)),
    "bar": lambda x, y: np.maximum(abs(x) - 1.1, abs(y) - 0.42),
}
_TEXTURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    # How much of the colour remains, 0 to 1, at the same coordinates.
    "plain": lambda x, y: np.ones_like(x),
    "striped": lambda x, y: 0.5 + 0.5 * np.sign(np.sin(9 * x)),
    "checked": lambda x, y: 0.5 + 0.5 * np.sign(np.sin(8 * x) * np.sin(8 * y)),
    "dotted": lambda x, y: (np.sin(8 * x) * np.sin(8 * y) < 0.45).astype(np.float64),
    "shaded": lambda x, y: np.clip(0.5 + 0.6 * y, 0, 1),
}
_COLOURS = {
    "red": (0.85, 0.2, 0.2),
    "green": (0.2, 0.7, 0.25),
    "blue": (0.2, 0.35, 0.85),
    "yellow": (0.85, 0.8, 0.2),
    "purple": (0.6, 0.25, 0.75),
    "cyan": (0.2, 0.75, 0.8),
}
_DEFAULT_CLASSES = 20
_BATCH = 512

# An arbitrary fixed time, so that archives of one seed are equal byte for byte.
_EPOCH_S = 1_000_000_000
_EPOCH = (2001, 9, 9, 1, 46, 40)


class _Class(NamedTuple):
    shape: str
    texture: str
    colour: str


def synthesize(dataset: str, folder: Path, *, train: int, val: int, classes: int | None = None, seed: int = 0) -> Path:
    """Draw a dataset and write it as an archive in the official layout; equal arguments give equal bytes.

    train, val: total images, spread as evenly as possible over the classes. classes: always 10 for cifar10, by default
    20 for tinyimagenet. Returns the archive's path. Raises DataError if the numbers do not allow a dataset.
    """
    facts = DATASETS.get(dataset)
    if facts is None:
        raise DataError(f"{dataset}: no such dataset; there are {', '.join(DATASETS)}")
    if dataset == "cifar10" and classes not in (None, facts.classes):
        raise DataError(f"a synthetic {facts.title} always has {facts.classes} classes, not {classes}; leave them out")
    count = classes or (facts.classes if dataset == "cifar10" else _DEFAULT_CLASSES)
    if not 2 <= count <= facts.classes:
        raise DataError(
            f"a synthetic {facts.title} has 2 to {facts.classes} classes, not {count}; choose fewer or more"
        )
    if train < count or val < 1:
        raise DataError(
            f"{train} training and {val} validation images are too few for {count} classes; choose at least {count} "
            "and 1"
        )
    kinds = _kinds(count)
    random = np.random.default_rng([seed, count, train, val])
    label_lists = [random.permutation(np.arange(samples) % count) for samples in (train, val)]
    image_lists = [_draw_all(kinds, labels, facts.image_size, random) for labels in label_lists]
    write = _cifar10 if dataset == "cifar10" else _tinyimagenet
    path = folder / f"synthetic-{facts.archive}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, write(kinds, *label_lists, *image_lists))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another folder or free space") from error
    return path


def _kinds(count: int) -> list[_Class]:
    """Return the first `count` classes of a fixed random order."""
    every = [_Class(*parts) for parts in itertools.product(_SHAPES, _TEXTURES, _COLOURS)]
    order = np.random.default_rng(0).permutation(len(every))
    return [every[index] for index in order[:count]]


def _draw_all(
    kinds: list[_Class], labels: npt.NDArray[np.int64], size: int, random: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draw an image for each label: (N, 3, size, size) uint8."""
    images = np.empty((len(labels), 3, size, size), np.uint8)
    for label, kind in enumerate(kinds):
        of_class = np.flatnonzero(labels == label)
        for start in range(0, len(of_class), _BATCH):
            chosen = of_class[start : start + _BATCH]
            images[chosen] = _draw(kind, len(chosen), size, random)
    return images


def _draw(kind: _Class, count: int, size: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw count images of one class: (count, 3, size, size) uint8."""

    def each(low: float, high: float, *shape: int) -> Floats:
        return random.uniform(low, high, (count, *(shape or (1, 1))))

    row, column = np.mgrid[0:size, 0:size] * (2 / (size - 1)) - 1
    scale, angle = each(0.45, 0.75), each(-0.5, 0.5)
    dx, dy = column - each(-0.35, 0.35), row - each(-0.35, 0.35)
    x = (np.cos(angle) * dx + np.sin(angle) * dy) / scale
    y = (np.cos(angle) * dy - np.sin(angle) * dx) / scale
    # The outline is blurred over about one pixel, whatever the size.
    mask = np.clip(0.5 - _SHAPES[kind.shape](x, y) * scale * size / 2, 0, 1)[:, None]
    texture = (0.35 + 0.65 * _TEXTURES[kind.texture](x, y))[:, None]
    colour = np.array(_COLOURS[kind.colour])[:, None, None] + each(-0.2, 0.2, 3, 1, 1)
    slope = each(-0.3, 0.3)[:, None] * row + each(-0.3, 0.3)[:, None] * column
    background = each(0.15, 0.85, 3, 1, 1) + slope
    picture = background * (1 - mask) + colour * texture * mask
    picture = picture * each(0.7, 1.2, 1, 1, 1) + random.normal(0, 0.08, picture.shape)
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
    return pixels


def _cifar10(
    kinds: list[_Class],
    train_labels: npt.NDArray[np.int64],
    val_labels: npt.NDArray[np.int64],
    train_images: npt.NDArray[np.uint8],
    val_images: npt.NDArray[np.uint8],
) -> bytes:
    """Pack in the official layout: five training batches, a test batch and the class names in a gzipped tar."""
    parts = np.array_split(np.arange(len(train_labels)), len(cifar10.TRAIN))
    batches = {
        name: (f"training batch {number} of {len(parts)}", train_images[part], train_labels[part])
        for number, (name, part) in enumerate(zip(cifar10.TRAIN, parts, strict=True), 1)
    }
    batches[cifar10.TEST] = ("testing batch 1 of 1", val_images, val_labels)
    files = {SYNTHETIC_MARKER: _marker("CIFAR-10")}
    for name, (title, images, labels) in batches.items():
        file_names = [f"synthetic_{name}_{index:05d}.png" for index in range(len(labels))]
        rows = images.reshape(len(images), -1)
        files[name] = cifar10.dump(
            {"batch_label": f"synthetic {title}", "labels": labels.tolist(), "data": rows, "filenames": file_names}
        )
    names = [f"synthetic {kind.colour} {kind.texture} {kind.shape}" for kind in kinds]
    meta = {"num_cases_per_batch": len(parts[0]), "label_names": names, "num_vis": rows.shape[1]}
    files[cifar10.META] = cifar10.dump(meta)
    packed = io.BytesIO()
    # tarfile would put the current time into the gzip header.
    with (
        GzipFile("", "wb", 6, packed, mtime=_EPOCH_S) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in files.items():
            member = tarfile.TarInfo(f"{cifar10.INNER}/{name}")
            member.size, member.mtime, member.mode = len(content), _EPOCH_S, 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _tinyimagenet(
    kinds: list[_Class],
    train_labels: npt.NDArray[np.int64],
    val_labels: npt.NDArray[np.int64],
    train_images: npt.NDArray[np.uint8],
    val_images: npt.NDArray[np.uint8],
) -> bytes:
    """Pack in the official layout: a folder of JPEG files per class, validation images and annotations in a zip."""
    ids = [f"synthetic{label:03d}" for label in range(len(kinds))]
    words = [
        f"{name}\tsynthetic {kind.colour} {kind.texture} {kind.shape}" for name, kind in zip(ids, kinds, strict=True)
    ]
    box = f"0\t0\t{tinyimagenet.SIZE - 1}\t{tinyimagenet.SIZE - 1}"
    val_names = [f"val_{index}.JPEG" for index in range(len(val_labels))]
    annotations = [f"{name}\t{ids[label]}\t{box}" for name, label in zip(val_names, val_labels, strict=True)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:

        def put(name: str, content: bytes) -> None:
            entry = zipfile.ZipInfo(f"{tinyimagenet.INNER}/{name}", _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # Unix, a regular file
            archive.writestr(entry, content)

        put(SYNTHETIC_MARKER, _marker("TinyImageNet"))
        put(tinyimagenet.CLASSES, _text(ids))
        put("words.txt", _text(words))
        for label, name in enumerate(ids):
            images = train_images[train_labels == label]
            file_names = [f"{name}_{index}.JPEG" for index in range(len(images))]
            put(f"train/{name}/{name}_boxes.txt", _text([f"{file_name}\t{box}" for file_name in file_names]))
            for file_name, content in zip(file_names, _jpegs(images), strict=True):
                put(f"train/{name}/images/{file_name}", content)
        put(tinyimagenet.ANNOTATIONS, _text(annotations))
        for name, content in zip(val_names, _jpegs(val_images), strict=True):
            put(f"val/images/{name}", content)
    return packed.getvalue()


def _jpegs(images: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    for image in images:
        packed = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(packed, "JPEG", quality=90)
        yield packed.getvalue()


def _marker(title: str) -> bytes:
    return f"Drawn by 'sweep data synthesize' in the layout of {title}. No image of {title} is in here.\n".encode()


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
