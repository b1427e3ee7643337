"""Read TinyImageNet's folders of JPEG files: labels, order and parallel decoding.

Owns the layout of `tiny-imagenet-200`. Order: sorted by class, then by file name, as in
torchvision.datasets.ImageFolder.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from trainer.data.prepared import Contents, Split
from trainer.data.sources import Source

INNER = "tiny-imagenet-200"
CLASSES = MARKER = "wnids.txt"
ANNOTATIONS = "val/val_annotations.txt"
SIZE = 64

# Only the archive has a published md5, not its files.
OFFICIAL_MD5: dict[str, str] = {}

# The official images are 1 to 10 kB.
_LARGEST_IMAGE = 2**20
_LARGEST_TEXT = 16 * 2**20
_SUFFIXES = (".jpeg", ".jpg")

# Images decoded by a worker at a time: 3 MB of pixels, so that a few chunks per worker fit in any memory.
_CHUNK = 256
_MOST_WORKERS = 16


def read(source: Source, workers: int | None = None) -> Contents:
    """List the images and their labels; images are decoded as they are iterated over.

    workers: decoding threads, by default one per usable core. Raises DataError, naming the file, here or when decoding.
    """
    source.enter(INNER, CLASSES)
    classes = _class_names(source)
    train = _train(source, classes)
    val = _val(source, classes)
    workers = workers or min(_usable_cores(), _MOST_WORKERS)
    return Contents(
        classes=classes,
        image_size=SIZE,
        train=Split(_labels(train), _decode_all(source, [name for _, name in train], workers)),
        val=Split(_labels(val), _decode_all(source, [name for _, name in val], workers)),
    )


def _class_names(source: Source) -> list[str]:
    names = [line.strip() for line in _lines(source, CLASSES)]
    for name in names:
        _require_plain(source, CLASSES, name)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise source.error(CLASSES, f"names the class {twice} twice")
    if not names:
        raise source.error(CLASSES, "names no class")
    unknown = sorted(set(source.folders("train")) - set(names))
    if unknown:
        # A truncated list looks like this, and would change the labels of other classes.
        raise source.error(f"train/{unknown[0]}", f"is a class that {CLASSES} does not name")
    return sorted(names)


def _train(source: Source, classes: Sequence[str]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for label, name in enumerate(classes):
        folder = f"train/{name}/images"
        images = _images(source, folder)
        if not images:
            raise source.error(folder, f"the class {name} of {CLASSES} has no training images")
        found.extend((label, f"{folder}/{image}") for image in images)
    return found


def _val(source: Source, classes: Sequence[str]) -> list[tuple[int, str]]:
    label_of = {name: label for label, name in enumerate(classes)}
    annotated: dict[str, int] = {}
    for line in _lines(source, ANNOTATIONS):
        # file name, class, then the corners of a box, all separated by tabs
        image, _, rest = line.partition("\t")
        name = rest.split("\t")[0].strip()
        _require_plain(source, ANNOTATIONS, image)
        if name not in label_of:
            raise source.error(ANNOTATIONS, f"gives {image} the class {name!r}, which {CLASSES} does not name")
        if image in annotated:
            raise source.error(ANNOTATIONS, f"has {image} twice")
        annotated[image] = label_of[name]
    if not annotated:
        raise source.error(ANNOTATIONS, "names no image")
    present = _images(source, "val/images")
    missing = sorted(set(annotated).difference(present))
    if missing:
        raise source.error(f"val/images/{missing[0]}", f"is missing, though {ANNOTATIONS} names it")
    surplus = sorted(set(present).difference(annotated))
    if surplus:
        # Not skipped silently: truncated annotations look like this.
        raise source.error(f"val/images/{surplus[0]}", f"has no label, {ANNOTATIONS} does not name it")
    return sorted((label, f"val/images/{image}") for image, label in annotated.items())


def _images(source: Source, folder: str) -> list[str]:
    # Skips other files (.DS_Store, Thumbs.db), as ImageFolder does.
    return [name for name in source.files(folder) if name.lower().endswith(_SUFFIXES) and not name.startswith(".")]


def _lines(source: Source, name: str) -> list[str]:
    try:
        text = source.read(name, _LARGEST_TEXT).decode()
    except UnicodeDecodeError as error:
        raise source.error(name, f"is not a text file ({error})") from error
    return [line for line in text.splitlines() if line.strip()]


def _require_plain(source: Source, file: str, name: str) -> None:
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise source.error(file, f"has {name!r} where a plain name belongs")


def _labels(found: Sequence[tuple[int, str]]) -> npt.NDArray[np.int64]:
    return np.array([label for label, _ in found], np.int64)


def _decode_all(source: Source, names: Sequence[str], workers: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode in threads (Pillow releases the GIL) and yield chunks in the order of names.

    Only a few chunks are in progress at a time, so memory does not grow if the disk is slower than the cores.
    """
    starts = iter(range(0, len(names), _CHUNK))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[npt.NDArray[np.uint8]]] = deque()
        try:
            while True:
                while len(waiting) < 2 * workers and (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(_decode_chunk, source, names[start : start + _CHUNK]))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode_chunk(source: Source, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    images = np.empty((len(names), 3, SIZE, SIZE), np.uint8)
    for image, name in zip(images, names, strict=True):
        image[...] = _decode(source, name)
    return images


def _decode(source: Source, name: str) -> npt.NDArray[np.uint8]:
    """Decode one JPEG to (3, 64, 64) uint8, grey to RGB as in ImageFolder. The size is checked before decoding."""
    content = source.read(name, _LARGEST_IMAGE)
    try:
        with Image.open(BytesIO(content), formats=("JPEG",)) as image:
            if image.size != (SIZE, SIZE):
                raise source.error(name, f"is {image.size[0]}×{image.size[1]} pixels, not {SIZE}×{SIZE}")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's message would name its input buffer.
        reason = "no JPEG at all" if isinstance(error, UnidentifiedImageError) else str(error)
        raise source.error(name, f"is not a whole JPEG image ({reason})") from error


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
