"""Speeds by the benchmark's own processes: ours and Lightning alone, and ours sharing the GPU."""

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

from benchmarks import cases
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_check.setting import DATASETS, GIB, Answer, Found, Setting
from benchmarks.launch import Bench
from benchmarks.records import LIGHTNING, Sample, Shape, Side
from benchmarks.summary import combined_images_per_second, fastest, images_per_second
from slurm.mps import multi_process_service

EPOCHS = 3
SHARED = (("resnet18", 4), ("vit", 2))  # (architecture, the most processes at once)
WAYS = ("in turn", "service")  # without NVIDIA's multi-process service, with it


def draw_some(setting: Setting, answer: Answer) -> None:
    """Draw the sets for whole runs and for measurements inside a step."""
    _draw(setting, setting.some)


def draw_many(setting: Setting, answer: Answer) -> None:
    """Draw the sets for speeds."""
    _draw(setting, setting.many)


def measure(setting: Setting, answer: Answer) -> None:
    """Measure the device's own precision, after a search for the loader processes that serve Lightning best."""
    measuring = _Measuring(setting, answer)
    loaders = measuring.search(_shapes(setting)[0])
    answer("setting", {"loaders": loaders})
    for shape in _shapes(setting):
        measuring.add(shape, cases.ours(setting.auto))
        measuring.add(shape, _peer(setting.auto, loaders))


def measure_others(setting: Setting, answer: Answer) -> None:
    """Measure fp32, then ours in fp16; what is left out when time is up is worth least."""
    measuring = _Measuring(setting, answer)
    sides = [] if setting.auto == "fp32" else [cases.ours("fp32"), _peer("fp32", setting.loaders)]
    for side in [*sides, *([] if setting.rehearsal or setting.auto == "fp16" else [cases.ours("fp16")])]:
        for shape in _shapes(setting):
            measuring.add(shape, side)


class _Measuring:
    """Measurements that are answered as they come in. One that fails, or cannot be made, does not end the others."""

    def __init__(self, setting: Setting, answer: Answer) -> None:
        self.setting = setting
        self.answer = answer
        self.bench = _bench(setting)
        self.samples: list[Sample] = []
        self.tried: list[Sample] = []

    def search(self, shape: Shape) -> int:
        """Choose Lightning's loader processes; the measurement of the chosen number counts for the shape."""
        gpu = not self.setting.rehearsal
        for side in cases.peer_variants(self.setting.auto, gpu, self.setting.cores):
            if side.batch == cases.STEP:
                self.tried += self._measure(shape, side)
        self.answer("search", [sample.model_dump(mode="json") for sample in self.tried])
        return fastest(self.tried).loader_workers if self.tried else self.setting.cores

    def add(self, shape: Shape, side: Side) -> None:
        known = [sample for sample in self.tried if (sample.shape, sample.side) == (shape, side)]
        self.samples += known or self._measure(shape, side)
        self.answer("samples", [sample.model_dump(mode="json") for sample in self.samples])

    def _measure(self, shape: Shape, side: Side) -> list[Sample]:
        if side.program == LIGHTNING and find_spec("lightning") is None:
            self.answer("missing", "Lightning is not installed")
            return []
        name = " ".join((shape.architecture, shape.dataset, *(str(value) for value in side.model_dump().values())))
        try:
            found = self.bench.measure(shape, side, self.setting.many, drawn=self.setting.many)
        except BenchmarkError as error:
            self.answer(name, {"problem": str(error)})
            return []
        self.answer(name, round(images_per_second(found)))
        return [Sample(shape=shape, side=side, round=0, measurement=found)]


def measure_shared(setting: Setting, answer: Answer) -> None:
    """Measure several of ours at once, time-sharing the GPU and through NVIDIA's multi-process service."""
    for architecture, most in SHARED[:1] if setting.rehearsal else SHARED:
        shape = Shape(architecture=architecture, dataset="cifar10")
        counts = [count for count in (1, 2, 4) if count <= (2 if setting.rehearsal else most)]
        for service in (False, True):
            with (
                multi_process_service() if service else nullcontext(dict(os.environ)) as environment,
                patch.dict(os.environ, environment),
            ):
                for count in counts[service:]:
                    answer(f"{architecture} {count} {WAYS[service]}", _together(setting, shape, count))
                if service and "CUDA_MPS_PIPE_DIRECTORY" not in environment:
                    answer("missing", "no multi-process service could be had")


def _together(setting: Setting, shape: Shape, count: int) -> Found:
    try:
        found = _bench(setting).measure_beside(shape, cases.ours(setting.auto), setting.many, count)
    except BenchmarkError as error:
        return {"problem": str(error)}
    return {
        "images_per_second": combined_images_per_second(found),
        "memory_gib": sum(one.device_memory_bytes or 0 for one in found) / GIB,
        "startup_s": max(one.startup_s for one in found),
    }


def _draw(setting: Setting, images: int) -> None:
    bench = _bench(setting)
    with ProcessPoolExecutor(len(DATASETS)) as pool:
        list(pool.map(bench.draw, DATASETS, [images] * len(DATASETS)))


def _shapes(setting: Setting) -> list[Shape]:
    return cases.shapes(["resnet18", "vit"], [32, 64])[: 1 if setting.rehearsal else None]


def _peer(precision: str, loaders: int) -> Side:
    return Side(program=LIGHTNING, precision=precision, batch=cases.STEP, loader_workers=loaders)


def _bench(setting: Setting) -> Bench:
    epochs = 1 if setting.rehearsal else EPOCHS
    return Bench(Path(setting.work), device=setting.device, cores=setting.cores, epochs=epochs)
