"""Twelve epochs of ResNet-18 on GPU and CPU: how far number formats and devices diverge."""

import torch

from benchmarks.gpu_check.making import make, train
from benchmarks.gpu_check.setting import Answer, Combination, Found, Setting
from trainer.records.result import METRICS

EPOCHS = 12


def draw_curves(setting: Setting, answer: Answer) -> None:
    """Train on the GPU in fp32 and its own precision, on the CPU in fp32 with two numbers of threads."""
    epochs = 2 if setting.rehearsal else EPOCHS
    threads = max(setting.cores * 3 // 8, 2)

    def curve(precision: str, device: str, threads: int) -> Found:
        torch.set_num_threads(threads)
        one = Combination("resnet18", "cifar10", precision)
        history = train(make(one, setting, epochs=epochs, device=device), epochs).history
        return {name: getattr(history, name) for name in METRICS} | {"epoch_seconds": history.epoch_seconds}

    answer("cpu fp32", curve("fp32", "cpu", threads))
    answer("cpu fp32, other threads", curve("fp32", "cpu", threads - 1))
    for precision in dict.fromkeys(("fp32", setting.auto)):
        answer(f"card {precision}", curve(precision, setting.device, 1))
