"""A stand-in for CUDA graphs where there is no GPU: it replays kernels and knows nothing of the Python around them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import TensorWeakRef

from trainer.loop.step import Work

REFUSAL = "CUDA error: operation not permitted when stream is capturing\nCompile with `TORCH_USE_CUDA_DSA`"


class StrictGraphs:
    """Records a step as the calls of torch's kernels that it makes, and replays these on the memory they had.

    As with CUDA's graphs, recording changes nothing, numbers are what they were when recorded, what the step allocates
    is the recording's own, and looking at a value breaks the recording off. Where memory from outside has been given
    back since, a GPU would use whatever is there by then; here the replay raises AssertionError.
    """

    def __init__(self) -> None:
        self.warmed_up = self.recorded = self.replayed = 0

    def warm_up(self, work: Work) -> None:
        self.warmed_up += 1
        work()

    def record(self, work: Work) -> Work:
        self.recorded += 1
        tape = _Tape()
        try:
            with torch.random.fork_rng(devices=()), tape:
                work()
        finally:
            tape.undo()

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return replay


class _Tape(TorchDispatchMode):
    """Writes down every call below autograd and autocast, while it is made."""

    def __init__(self) -> None:
        super().__init__()
        # Each call, its arguments, and where each result is kept: None for views and what is changed in place.
        self._calls: list[tuple[Callable[..., Any], Any, list[Tensor | None]]] = []
        self._own: dict[int, Tensor] = {}
        self._outside: dict[int, tuple[TensorWeakRef, Tensor, Tensor]] = {}  # owner, alias, bytes before the recording

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in function.tags:
            raise RuntimeError(REFUSAL)
        given = args, kwargs or {}
        for tensor in filter(self._is_new, _tensors(given)):
            self._outside[_memory(tensor)] = TensorWeakRef(tensor), tensor.detach(), _bytes(tensor).clone()
        results = function(*given[0], **given[1])
        places = [tensor.detach() if self._is_new(tensor) else None for tensor in _tensors(results)]
        self._own |= {_memory(place): place for place in places if place is not None}
        self._calls.append((function, tree_map_only(Tensor, Tensor.detach, given), places))
        return results

    def _is_new(self, tensor: Tensor) -> bool:
        memory = _memory(tensor)
        return memory not in self._own and memory not in self._outside

    def undo(self) -> None:
        """Bring outside memory to where it was; the recording's own holds nothing of use until a replay."""
        for _, alias, before in self._outside.values():
            _bytes(alias).copy_(before)
        for tensor in self._own.values():
            _bytes(tensor).fill_(255)

    @torch.no_grad()
    def replay(self) -> None:
        for owner, alias, _ in self._outside.values():
            assert owner() is not None, f"memory that the recorded step uses was given back: {tuple(alias.shape)}"
        for function, (args, kwargs), places in self._calls:
            for place, result in zip(places, _tensors(function(*args, **kwargs)), strict=True):
                if place is not None:
                    place.copy_(result)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> Tensor:
    """Return all of the memory that a tensor is a view of."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
