"""The options of all parts, and what the first of them finds out for the others."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

from trainer.records.files import write_atomic

ARCHITECTURES = ("resnet18", "vit")
DATASETS = ("cifar10", "tinyimagenet")
SEED = 42
GIB = 2**30

Found = dict[str, Any]
Answer = Callable[[str, object], None]


@dataclass(frozen=True)
class Setting:
    """The options. rehearsal: the CPU in place of the card, and just enough to see that the check runs.

    The parts find the others: auto, the precision that "auto" chooses; memory_gib of the card; loaders, the number of
    processes with which Lightning's loader is fastest.
    """

    rehearsal: bool
    work: str
    cores: int
    auto: str = "fp32"
    memory_gib: float = 0.0
    loaders: int = 0

    @property
    def device(self) -> str:
        return "cpu" if self.rehearsal else "cuda"

    @property
    def some(self) -> int:
        """Drawn images for whole runs and inside a step."""
        return 64 if self.rehearsal else 2560

    @property
    def many(self) -> int:
        """Drawn images for speeds."""
        return 512 if self.rehearsal else 20_480

    @property
    def batch(self) -> int:
        return 8 if self.rehearsal else 128

    @property
    def epochs(self) -> int:
        """Epochs of a whole run, long enough for its steps to be recorded."""
        return 3 if self.rehearsal else 12

    def data(self) -> Path:
        """The folder of the smaller set, named as in `benchmarks.launch`."""
        return Path(self.work) / f"images-{self.some}"

    def at_once(self, most: int, each_gib: float) -> int:
        """Choose how many processes share the cores and the card's memory."""
        return max(min(most, self.cores // 2, int(self.memory_gib / each_gib) if self.memory_gib else most), 1)

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


def combinations(setting: Setting) -> list[Combination]:
    """List every combination, ordered by precision, dataset, architecture; a rehearsal has the first and the last."""
    every = [
        Combination(architecture, dataset, precision)
        for precision, dataset, architecture in product(dict.fromkeys((setting.auto, "fp32")), DATASETS, ARCHITECTURES)
    ]
    return [every[0], every[-1]] if setting.rehearsal else every


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
