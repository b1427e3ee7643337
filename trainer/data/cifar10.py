"""Read CIFAR-10's python batches without running code from them, and write the same format.

Owns the format of `cifar-10-batches-py`: pickled dictionaries, read by an unpickler that admits only what they hold.
Format: https://www.cs.toronto.edu/~kriz/cifar.html; order of the batches as in torchvision.datasets.CIFAR10.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from trainer.data.prepared import Contents, Split
from trainer.data.sources import Source

INNER = "cifar-10-batches-py"
META = MARKER = "batches.meta"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
SIZE = 32

# The official files', from torchvision.datasets.CIFAR10.
OFFICIAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}

# What C-level unpickling raises on damaged input, from the pickle module's documentation and by experiment.
_DAMAGE = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, MemoryError, OverflowError,
    RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip


def read(source: Source) -> Contents:
    """Read the five training batches in order, and the test batch as val.

    Holds every image in memory: 184 MB for the whole dataset. Raises DataError, naming the file.
    """
    source.enter(INNER, META)
    names = _strings(source, META, _load(source, META).get("label_names"))
    train = [_batch(source, name, len(names)) for name in TRAIN]
    val = _batch(source, TEST, len(names))
    labels = np.concatenate([labels for _, labels in train])
    empty = sorted(set(range(len(names))) - set(labels.tolist()))
    if empty:
        raise source.error(META, f"class {names[empty[0]]!r} has no image in any training batch")
    return Contents(
        classes=names,
        image_size=SIZE,
        train=Split(labels, iter([images for images, _ in train])),
        val=Split(val[1], iter([val[0]])),
    )


def dump(value: dict[str, Any]) -> bytes:
    """Pickle a batch as Python 2 did for the official archive: protocol 2, byte strings, numpy's old module names.

    value: holds str, int, lists of these, and two-dimensional uint8 arrays.
    """
    return b"\x80\x02" + _emit(value) + b"."


def _batch(source: Source, name: str, classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read one batch: images (N, 3, 32, 32) and labels (N,)."""
    batch = _load(source, name)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, _Array) or data.values is None or data.values.shape[1:] != (3 * SIZE * SIZE,):
        raise source.error(name, f"its 'data' is not an array of uint8 rows of {3 * SIZE * SIZE}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise source.error(name, "its 'labels' is not a list of whole numbers")
    if not labels or len(labels) != len(data.values):
        raise source.error(name, f"holds {len(data.values)} images and {len(labels)} labels")
    outside = [label for label in labels if not 0 <= label < classes]
    if outside:
        raise source.error(name, f"has the label {outside[0]}, but {META} names {classes} classes")
    return data.values.reshape(-1, 3, SIZE, SIZE), np.array(labels, np.int64)


def _strings(source: Source, name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(item, bytes | str) for item in value):
        raise source.error(name, "its 'label_names' is not a list of class names")
    names = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value]
    if len(set(names)) < len(names):
        raise source.error(name, "names a class twice")
    return names


def _load(source: Source, name: str) -> dict[str, object]:
    content = source.read(name)
    try:
        # Unpickling allocates the memo up to the highest index: a few bytes could demand all the memory.
        if any("PUT" in code.name and (number or 0) > len(content) for code, number, _ in pickletools.genops(content)):
            raise pickle.UnpicklingError("numbers its parts beyond its own length")
        value = _Unpickler(io.BytesIO(content)).load()
        if not isinstance(value, dict):
            raise pickle.UnpicklingError("does not hold a dictionary")
        return {key.decode("latin1") if isinstance(key, bytes) else str(key): part for key, part in value.items()}
    except _Forbidden as error:
        raise source.error(name, f"{error}, which no CIFAR-10 batch does, so none of it was run") from error
    except _DAMAGE as error:
        raise source.error(name, f"is not a whole CIFAR-10 batch ({error or type(error).__name__})") from error


class _Forbidden(Exception):
    """The pickle contains something that does not belong in a batch."""


class _Known:
    """Stand-in for a class or function that batches refer to; does only what batches call it for."""

    __slots__ = ("_call", "_name")

    def __init__(self, name: str, call: Callable[..., object]) -> None:
        self._name = name
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise _Forbidden(f"asks to change {self._name}")


class _Dtype:
    """Stand-in for the only dtype in a batch, uint8."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        # (version, byte order, …) has no meaning for uint8.
        return None


class _Array:
    """Stand-in for a numpy array during unpickling. values: (N, M) uint8, None until its state has been read."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: npt.NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[object, tuple[int, int], object, bool, bytes]) -> None:
        _, (rows, columns), dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes) or len(content) != rows * columns:
            raise pickle.UnpicklingError("an array is not two-dimensional uint8, or is cut short")
        values = np.frombuffer(content, np.uint8).reshape((rows, columns), order="F" if fortran else "C")
        self.values = np.ascontiguousarray(values)


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _dtype(code: object, *flags: object) -> _Dtype:
    if code not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"an array has dtype {code!r}, not uint8")
    return _Dtype()


def _encode(text: object, codec: object = None) -> bytes:
    # Python 3 writes bytes this way at protocol 2. Other codecs decompress, or import modules by name.
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise _Forbidden(f"asks to encode with {codec!r}")
    return text.encode("latin1")


def _never(*arguments: object) -> NoReturn:
    raise _Forbidden("asks to construct an array directly")


class _Unpickler(pickle.Unpickler):
    """Unpickles what CIFAR-10 batches hold, as written by Python 2 or rewritten by Python 3, and nothing else.

    Not even numpy's own functions are called: each admitted name is a stand-in that checks its arguments.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="bytes")
        self._known = {
            ("numpy.core.multiarray", "_reconstruct"): _Known("numpy's _reconstruct", _reconstruct),
            ("numpy._core.multiarray", "_reconstruct"): _Known("numpy's _reconstruct", _reconstruct),
            ("numpy", "ndarray"): _Known("numpy.ndarray", _never),
            ("numpy", "dtype"): _Known("numpy.dtype", _dtype),
            ("_codecs", "encode"): _Known("_codecs.encode", _encode),
        }

    def find_class(self, module: str, name: str) -> Any:
        known = self._known.get((module, name))
        if known is None:
            raise _Forbidden(f"asks to call {module}.{name}")
        return known


def _emit(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_emit(key) + _emit(part) for key, part in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_emit, value)) + b"e"
    if isinstance(value, str):
        return _emit(value.encode("latin1"))
    if isinstance(value, bytes):
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 2:
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = b"cnumpy\ndtype\nU\x02u1\x89\x88\x87R(K\x03U\x01|NNN" + _emit(-1) * 2 + b"K\x00tb"
        shape = _emit(value.shape[0]) + _emit(value.shape[1]) + b"\x86"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + _emit(value.tobytes()) + b"tb"
    raise TypeError(f"a CIFAR-10 batch holds no {type(value).__name__}")
