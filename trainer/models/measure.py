"""Measure networks by reference without training them: `python -m trainer.models.measure`, JSON in and out.

A network is built and called on torch's meta device, where tensors have shapes and no memory: in training, then in
evaluation. One that does something there that needs numbers is called on the CPU instead. The planner, which does not
import torch, starts this as a process of its own.
"""

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.measured import Asked, Measured
from trainer.models.reference import ModelError, check_scores, load_model

BATCHES = (2, 4)  # of two sizes: what grows between them is of images


def measure(asked: Asked) -> Measured:
    """Build a network, call it, and count. Never raises: what is wrong with it is in the answer."""
    try:
        try:
            return _measure(asked, "meta")
        except ModelError:
            raise
        except Exception:
            return _measure(asked, "cpu")
    except ModelError as error:
        return Measured(problem=str(error))
    except Exception as error:
        return Measured(problem=f"{_place(error)}{type(error).__name__}: {error}")


def _measure(asked: Asked, device: str) -> Measured:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(device):
        model = load_model(asked.architecture, asked.classes, asked.image_size, asked.dropout)
    flops, kept, passing = [], [], []
    for images in BATCHES:
        inputs = torch.rand(images, 3, asked.image_size, asked.image_size, device=device)
        model.train()
        with FlopCounterMode(display=False) as counter:
            stored, _ = _count(model, inputs, asked.classes)
        flops.append(counter.get_total_flops())
        model.eval()
        with torch.no_grad():
            _, largest = _count(model, inputs, asked.classes)
        kept.append(stored)
        passing.append(largest)
    return Measured(
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        forward_macs=_an_image(flops) / 2,
        # Backward holds what forward stored, and a gradient of the size of an output on its way.
        step_bytes=_an_image(kept) + _an_image(passing),
        evaluation_bytes=3 * _an_image(passing),
    )


def _count(model: nn.Module, inputs: Tensor, classes: int) -> tuple[int, int]:
    """(bytes that a forward pass stores for the backward one, bytes of the largest output of a module)."""
    stored: dict[int, int] = {}
    held = []  # so that no storage is taken for one that is gone
    largest = 0

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held.append(storage)
        stored[storage._cdata] = storage.nbytes()
        return tensor

    def see(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size())

    hooks = [module.register_forward_hook(see) for module in model.modules()]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            scores = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    check_scores(scores, len(inputs), classes)
    return sum(stored.values()), largest


def _an_image(counts: list[int]) -> float:
    """What an image adds, by calls with the two numbers of them."""
    fewer, more = BATCHES
    return (counts[1] - counts[0]) / (more - fewer)


def _place(error: Exception) -> str:
    """The last line of the user's own code that an error came through, as "models.py:12: "."""
    ours = str(Path(torch.__file__).parent), str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def main(read: Callable[[], str] = sys.stdin.read) -> None:
    """Answer one JSON document: {"paths": where to import from, "asked": a list}; prints the answers in its order."""
    told = json.loads(read())
    sys.path[:0] = told["paths"]
    out, sys.stdout = sys.stdout, sys.stderr  # what a module prints as it is imported is no answer
    answers = [measure(Asked(**one))._asdict() for one in told["asked"]]
    print("\n" + json.dumps(answers), file=out)


if __name__ == "__main__":
    main()
