"""Twelve epochs of ResNet-18 on GPU and CPU: how far number formats and devices diverge."""

from typing import Any

import torch

from benchmarks.gpu_probe.making import make, train
from benchmarks.gpu_probe.setting import Answer, Combination, Setting
from trainer.records.result import METRICS

EPOCHS = 12


def draw_curves(setting: Setting, answer: Answer) -> None:
    """Train on the GPU in fp32 (twice) and bf16, on the CPU with 6 and with 4 threads."""
    epochs = 2 if setting.tiny else EPOCHS

    def curve(precision: str, device: str, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        one = Combination("resnet18", "cifar10", precision)
        trainer = train(make(one, setting, epochs=epochs, device=device), epochs)
        history = trainer.history
        return {name: getattr(history, name) for name in METRICS} | {"epoch_seconds": history.epoch_seconds}

    answer("gpu fp32", curve("fp32", setting.device, 1))
    answer("gpu fp32 again", curve("fp32", setting.device, 1))
    answer("gpu bf16", curve("bf16", setting.device, 1))
    answer("cpu fp32", curve("fp32", "cpu", 1 if setting.tiny else 6))
    answer("cpu fp32, other threads", curve("fp32", "cpu", 1 if setting.tiny else 4))
