"""Kernels, time and memory of a step, eager ("as written") and captured ("recorded"), and of an evaluation."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_probe.making import make, no_tick, train, wait
from benchmarks.gpu_probe.setting import Answer, Combination, Setting, combinations
from trainer.loop.trainer import Trainer

PROFILED = 3
WARM_UP_EPOCHS = 2
TIMED_EPOCHS = 8
LONGEST = 10
EVALUATION_BATCHES = (500, 1000, 2500)
WAYS_TO_CONVOLVE = (  # name, search for the fastest algorithm, deterministic ones only
    ("searched", True, False),
    ("searched, deterministic", True, True),
    ("not searched", False, False),
)
GIB = 2**30


def look_inside(setting: Setting, answer: Answer) -> None:
    """Measure every combination in sequence, alone on the GPU."""
    for one in combinations(("fp32",))[:1] if setting.tiny else combinations():
        answer(str(one), {"as written": as_written(one, setting), "recorded": recorded(one, setting)})
        _forget()


def try_variants(setting: Setting, answer: Answer) -> None:
    """Time the captured step with other algorithms, memory formats and TF32."""
    for one in combinations(("fp32",))[:1] if setting.tiny else combinations():
        times: dict[str, Any] = {"as it is": _replay_ms(make(one, setting))}
        if one.architecture == "resnet18":
            for name, search, deterministic in WAYS_TO_CONVOLVE:
                trainer = make(one, setting)
                torch.backends.cudnn.benchmark = search
                torch.backends.cudnn.deterministic = deterministic
                times[name] = _replay_ms(trainer)
                del trainer
            times["other memory order"] = _replay_ms(_in_other_order(make(one, setting)))
        if one.precision == "fp32":
            trainer = make(one, setting)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
            times["tf32"] = _replay_ms(trainer)
            torch.backends.cuda.matmul.allow_tf32 = False
            del trainer
        answer(str(one), times)
        _forget()


def _in_other_order(trainer: Trainer) -> Trainer:
    """Switch to channels last in fp32, and to contiguous in the other precisions."""
    trainer.memory_format = torch.channels_last if trainer.precision == "fp32" else torch.contiguous_format
    trainer.model.to(memory_format=trainer.memory_format)  # type: ignore[call-overload]
    return trainer


def as_written(one: Combination, setting: Setting) -> dict[str, Any]:
    """Profile eager steps and an evaluation."""
    before = _allocated()
    trainer = make(one, setting, capture=False)
    begun = _allocated()
    step = take_steps(trainer)
    for _ in range(PROFILED):
        step()
    resting = _allocated()
    step_peak = _peak(step, trainer.device)
    evaluation_peak = _peak(lambda: trainer._evaluate(no_tick), trainer.device)
    eager_ms = _timed_ms([step] * 8, trainer.device)
    evaluations = {}
    for batch in EVALUATION_BATCHES:
        trainer.evaluation_batch = batch
        trainer._evaluate(no_tick)
        evaluations[batch] = {
            "ms": _timed_ms([lambda: trainer._evaluate(no_tick)] * 3, trainer.device),
            "peak_gib": _peak(lambda: trainer._evaluate(no_tick), trainer.device) - resting,
        }
    return {
        "images_gib": sum(part.nbytes for split in (trainer.train, trainer.val) for part in split) / GIB,
        "begun_gib": begun - before,
        "resting_gib": resting - before,
        "step_peak_gib": step_peak - resting,
        "evaluation_peak_gib": evaluation_peak - resting,
        "step_ms": eager_ms,
        "step": _kernels(step, PROFILED, trainer.device),
        "evaluation": _kernels(lambda: trainer._evaluate(no_tick), 1, trainer.device),
        "evaluations": evaluations,
        "validated": len(trainer.val.labels),
    }


def recorded(one: Combination, setting: Setting) -> dict[str, Any]:
    """Time the captured step, its kernels and whole epochs of it."""
    trainer = make(one, setting)
    step_ms = _replay_ms(trainer)
    kernels = _kernels(take_steps(trainer), trainer.steps, trainer.device)
    train(trainer, 4)
    return {
        "replayed": getattr(trainer.execution, "_replay", None) is not None,
        "step_ms": step_ms,
        "step": kernels,
        "epoch_s": median(trainer.history.epoch_seconds[-3:]),
        "steps": trainer.steps,
    }


def take_steps(trainer: Trainer) -> Callable[[], None]:
    """Return a function that takes the next training step, epoch after epoch."""
    number = 0

    def step() -> None:
        nonlocal number
        if number % trainer.steps == 0:
            trainer.execution.begin(trainer.draws.take(number // trainer.steps))
            trainer.optimizer.lr = trainer.recipe.learning_rate
        trainer.model.train()  # an evaluation may have come between
        trainer.execution(number % trainer.steps, trainer._update)
        number += 1

    return step


def _replay_ms(trainer: Trainer) -> float:
    """Measure the median milliseconds per step over several epochs, with the draws already on the device."""
    train(trainer, WARM_UP_EPOCHS)
    trainer.model.train()
    draws = trainer.draws.take(0)
    found = []
    for _ in range(TIMED_EPOCHS):
        trainer.execution.begin(draws)
        wait(trainer.device)
        began = time.perf_counter()
        for step in range(trainer.steps):
            trainer.execution(step, trainer._update)
        wait(trainer.device)
        found.append((time.perf_counter() - began) / trainer.steps * 1e3)
    return median(found)


def _timed_ms(work: Sequence[Callable[[], object]], device: torch.device) -> float:
    """Measure the mean milliseconds per item of work, queued on the device all at once."""
    wait(device)
    began = time.perf_counter()
    for one in work:
        one()
    wait(device)
    return (time.perf_counter() - began) / len(work) * 1e3


def _kernels(work: Callable[[], object], times: int, device: torch.device) -> dict[str, Any]:
    """Count the kernels of some work and sum their times. copies: the device's transfers and fills."""
    if device.type != "cuda":
        return {"kernels": 0, "copies": 0, "kernel_ms": 0.0, "longest": []}
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        for _ in range(times):
            work()
        wait(device)
    events = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    copies = [event for event in events if event.name.startswith(("Memcpy", "Memset"))]
    kernels = [event for event in events if event not in copies]
    by_name: dict[str, list[float]] = {}
    for event in events:
        by_name.setdefault(event.name[:110], []).append(event.time_range.elapsed_us())
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:LONGEST]
    return {
        "kernels": len(kernels) / times,
        "copies": len(copies) / times,
        "kernel_ms": sum(event.time_range.elapsed_us() for event in events) / times / 1e3,
        "longest": [[name, len(spent) / times, sum(spent) / times / 1e3] for name, spent in longest],
    }


def _allocated() -> float:
    return torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else 0.0


def _peak(work: Callable[[], object], device: torch.device) -> float:
    """Measure the peak GiB allocated during some work."""
    if device.type != "cuda":
        work()
        return 0.0
    wait(device)
    torch.cuda.reset_peak_memory_stats()
    work()
    wait(device)
    return torch.cuda.max_memory_allocated() / GIB


def _forget() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
