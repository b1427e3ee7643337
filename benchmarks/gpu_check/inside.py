"""A training step as it is recorded: its kernels, the gaps between them, what it moves through memory."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu_check.making import is_recorded, make, no_tick, train, wait
from benchmarks.gpu_check.setting import Answer, Combination, Found, Setting, combinations
from trainer.loop.trainer import Trainer

WARM_UP_EPOCHS = 2
TIMED = {"cuda": 8, "cpu": 2}
LONGEST = 10


def look_inside(setting: Setting, answer: Answer) -> None:
    """Measure every combination in sequence, alone on the GPU."""
    for one in combinations(setting):
        answer(str(one), _measure(one, setting))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Traffic(TorchDispatchMode):
    """Counts the bytes of what operations read and write, each operand once: less than a kernel for each would move."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func.__name__.startswith(("empty", "new_empty")):
            self.bytes += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        return result


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


def _measure(one: Combination, setting: Setting) -> Found:
    written = _as_written(one, setting)
    trainer = train(make(one, setting), WARM_UP_EPOCHS)
    draws = trainer.draws.take(WARM_UP_EPOCHS)

    def epoch() -> None:
        trainer.model.train()
        trainer.execution.begin(draws)
        for number in range(trainer.steps):
            trainer.execution(number, trainer._update)

    return {
        "recorded": is_recorded(trainer) or setting.rehearsal,
        **written,
        "step_ms": _ms(epoch, trainer.device) / trainer.steps,
        "evaluation_ms": _ms(lambda: trainer._evaluate(no_tick), trainer.device),
        "validated": len(trainer.val.labels),
        **_kernels(epoch, trainer.steps, trainer.device),
    }


def _as_written(one: Combination, setting: Setting) -> Found:
    trainer = make(one, setting, capture=False)
    step = take_steps(trainer)
    step()
    with Traffic() as traffic:
        step()
    return {"eager_ms": _ms(step, trainer.device), "traffic_gb": traffic.bytes / 1e9}


def _ms(work: Callable[[], object], device: torch.device) -> float:
    """Measure the median milliseconds of some work."""
    found = []
    for _ in range(TIMED[device.type]):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        found.append((time.perf_counter() - began) * 1e3)
    return median(found)


def _kernels(work: Callable[[], object], steps: int, device: torch.device) -> Found:
    """Count the kernels of a step and sum their times. copies: the device's transfers and fills.

    longest: [name, how many a step, milliseconds a step]; on a CPU these are operators.
    """
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        work()
        wait(device)
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    events = [event for event in profiled.events() if event.device_type == kind]
    copies = sum(event.name.startswith(("Memcpy", "Memset")) for event in events)
    by_name: dict[str, list[float]] = {}
    for event in events:
        spent = event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        by_name.setdefault(event.name[:110], []).append(spent / 1e3)
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:LONGEST]
    return {
        "kernels": (len(events) - copies) / steps,
        "copies": copies / steps,
        "kernel_ms": sum(map(sum, by_name.values())) / steps,
        "longest": [[name, len(spent) / steps, sum(spent) / steps] for name, spent in longest],
    }
