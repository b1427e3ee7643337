"""The options of all parts: device, folders, amounts."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from threading import Lock

from trainer.records.files import write_atomic

REPOSITORY = Path(__file__).parent.parent.parent
ARCHITECTURES = ("resnet18", "vit")
DATASETS = ("cifar10", "tinyimagenet")
SEED = 42

Answer = Callable[[str, object], None]


@dataclass(frozen=True)
class Setting:
    """The options. tiny: just enough to show that the program runs, for a CPU.

    few, some, many: numbers of drawn images for whole runs, for measurements inside a step, for speeds.
    """

    device: str
    work: str
    tiny: bool
    cores: int

    @property
    def few(self) -> int:
        return 64 if self.tiny else 1024

    @property
    def some(self) -> int:
        return 64 if self.tiny else 2560

    @property
    def many(self) -> int:
        return 512 if self.tiny else 20_480

    @property
    def more(self) -> int:
        """Images that need about 150 GiB as one step of the ViT in fp32."""
        return 512 if self.tiny else 28_672

    @property
    def half(self) -> int:
        return 512 if self.tiny else 10_240

    @property
    def batch(self) -> int:
        return 8 if self.tiny else 128

    @property
    def epochs(self) -> int:
        """Epochs of a whole run."""
        return 6 if self.tiny else 24

    def data(self, images: int) -> Path:
        """The folder of a drawn set, named as in `benchmarks.launch`."""
        return Path(self.work) / f"images-{images}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Setting":
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Combination:
    """An architecture, dataset and precision."""

    architecture: str
    dataset: str
    precision: str

    def __str__(self) -> str:
        return f"{self.architecture} {self.dataset} {self.precision}"


def combinations(precisions: tuple[str, ...] = ("bf16", "fp32")) -> list[Combination]:
    """List every combination, ordered by precision, dataset, architecture."""
    return [
        Combination(architecture, dataset, precision)
        for precision, dataset, architecture in product(precisions, DATASETS, ARCHITECTURES)
    ]


def environment(**more: str) -> dict[str, str]:
    """Return a child's environment, with this repository first on its path."""
    path = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}


@contextmanager
def answering(path: Path) -> Iterator[Answer]:
    """Yield a function that adds an answer and rewrites the file atomically each time."""
    answers: dict[str, object] = {}
    lock = Lock()  # parts answer from several threads

    def answer(name: str, value: object) -> None:
        with lock:
            answers[name] = value
            write_atomic(path, json.dumps(answers).encode())

    yield answer
