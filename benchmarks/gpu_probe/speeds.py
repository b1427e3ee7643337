"""Speeds by the benchmark's own processes: ours and Lightning alone, and ours sharing the GPU."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_probe.setting import Answer, Setting
from benchmarks.launch import Bench
from benchmarks.records import LIGHTNING, Measurement, Sample, Shape, Side
from benchmarks.summary import combined_images_per_second, images_per_second
from slurm.mps import multi_process_service

EPOCHS = 3
SHARED_EPOCHS = 2
SHARED = (1, 2, 4)
OTHERS = ((512, 8), (128, 16))  # (batch, loader processes) of Lightning


def shapes() -> list[Shape]:
    return cases.shapes(["resnet18", "vit"], [32, 64])


def measure_ours(setting: Setting, answer: Answer) -> None:
    precisions = ("fp32",) if setting.tiny else ("bf16", "fp32", "fp16")
    chosen = shapes()[:1] if setting.tiny else shapes()
    _measure([(shape, cases.ours(precision)) for precision in precisions for shape in chosen], setting, answer)


def measure_peer(setting: Setting, answer: Answer) -> None:
    """Measure Lightning with a batch of 512 and a loader process per core, and two variants of it once."""
    if setting.tiny:
        wanted = [(shapes()[0], _peer("fp32", 512, 0))]
    else:
        wanted = [(shape, _peer("fp32", 512, setting.cores)) for shape in reversed(shapes())]
        wanted += [(shapes()[0], _peer("bf16", batch, cores)) for batch, cores in OTHERS]
        wanted += [(shape, _peer("bf16", 512, setting.cores)) for shape in shapes()]
    _measure(wanted, setting, answer)


def measure_shared(setting: Setting, answer: Answer) -> None:
    """Measure several of ours at once, time-sharing the GPU and through NVIDIA's multi-process service."""
    precision, counts = ("fp32", (1, 2)) if setting.tiny else ("bf16", SHARED)
    before = dict(os.environ)
    for architecture in ("resnet18",) if setting.tiny else ("resnet18", "vit"):
        shape = Shape(architecture=architecture, dataset="cifar10")
        for service in (False, True):
            with multi_process_service() if service else nullcontext(before) as environment:
                os.environ.update(environment)
                bench = _bench(setting, SHARED_EPOCHS)
                for count in counts if not service else counts[1:]:
                    name = f"{architecture} {count} {'service' if service else 'in turn'}"
                    try:
                        measurements = bench.measure_beside(shape, cases.ours(precision), setting.half, count)
                    except BenchmarkError as error:
                        answer(name, {"problem": str(error)})
                        continue
                    answer(name, _shared(measurements) | {"service": "CUDA_MPS_PIPE_DIRECTORY" in environment})
            for key in os.environ.keys() - before.keys():
                del os.environ[key]


def _shared(found: list[Measurement]) -> dict[str, Any]:
    return {
        "images_per_second": combined_images_per_second(found),
        "device_memory_bytes": [one.device_memory_bytes for one in found],
        "startup_s": max(one.startup_s for one in found),
    }


def _measure(wanted: list[tuple[Shape, Side]], setting: Setting, answer: Answer) -> None:
    bench = _bench(setting, 1 if setting.tiny else EPOCHS)
    samples: list[dict[str, Any]] = []
    for shape, side in wanted:
        parts = (shape.architecture, shape.dataset, *(str(value) for value in side.model_dump().values()))
        name = " ".join(parts)
        try:
            measurement = bench.measure(shape, side, setting.many, drawn=setting.many)
        except BenchmarkError as error:
            answer(name, {"problem": str(error)})
            continue
        samples.append(Sample(shape=shape, side=side, round=0, measurement=measurement).model_dump(mode="json"))
        answer("samples", samples)
        answer(name, round(images_per_second(measurement)))


def _peer(precision: str, batch: int, workers: int) -> Side:
    return Side(program=LIGHTNING, precision=precision, batch=batch, loader_workers=workers)


def _bench(setting: Setting, epochs: int) -> Bench:
    return Bench(Path(setting.work), device=setting.device, cores=setting.cores, epochs=epochs)
