"""Draw the images that the parts read, a set by `python -m benchmarks.gpu_probe.drawing DATASET IMAGES FOLDER`."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu_probe.setting import DATASETS, REPOSITORY, Answer, Setting, environment
from trainer.data.prepare import prepare
from trainer.data.prepared import read_manifest
from trainer.data.synthesize import synthesize

MOST, FEW = 20_480, 1_000


def draw_small(setting: Setting, answer: Answer) -> None:
    """Draw the sets for whole runs and for measurements inside a step."""
    _draw([(dataset, images) for images in (setting.some, setting.few) for dataset in DATASETS], setting, answer)


def draw_large(setting: Setting, answer: Answer) -> None:
    """Draw the sets for speeds, the slowest first."""
    sets = [(dataset, setting.many) for dataset in reversed(DATASETS)]
    _draw([*sets, ("cifar10", setting.more), ("cifar10", setting.half)], setting, answer)


def _draw(sets: list[tuple[str, int]], setting: Setting, answer: Answer) -> None:
    def one(wanted: tuple[str, int]) -> None:
        dataset, images = wanted
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.gpu_probe.drawing", dataset, str(images)]
        subprocess.run([*command, str(setting.data(images))], cwd=REPOSITORY, env=environment(), check=True)
        answer(f"{dataset} {images}", round(time.monotonic() - began, 1))

    with ThreadPoolExecutor(len(sets)) as pool:
        list(pool.map(one, dict.fromkeys(sets)))


def draw(dataset: str, images: int, data: Path) -> None:
    """Draw `images` training and as many validation images, unless they exist.

    Preparation reads no more than an official archive holds, so a very large training set gets few validation images.
    """
    if read_manifest(data, dataset) is None:
        val = images if images <= MOST else FEW
        archive = synthesize(dataset, data / "archives" / dataset, train=images, val=val)
        prepare(dataset, str(archive), data, unofficial=True)
        archive.unlink()


if __name__ == "__main__":
    draw(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
