"""A GPU for tests where there is none: torch's fake tensors on "cuda:0", which have shapes and dtypes but no values.

The trainer's own code runs; kernels do not. What a fake lacks is put in its place: a guard of the device, the answers
of a driver, a backward pass that only fills gradients, and kernels that have no fake.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from trainer.data import augment
from trainer.loop.step import Work

aten = torch.ops.aten
CUDA, META = 1, 14  # places in c10::DeviceType
SLOTS = 22  # c10::COMPILE_TIME_MAX_DEVICE_TYPES
FUNCTIONS, GET_DEVICE = 24, 2  # virtual ones of c10::impl::DeviceGuardImplInterface, in their order
DEVICE = ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_void_p)  # a c10::Device: its type below its index, a byte each
ARCHITECTURES = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
# Kernels that work in place and have no fake.
IN_PLACE = {
    aten._fused_adamw_.default,
    aten._fused_adamw_.tensor_lr,
    aten._amp_foreach_non_finite_check_and_unscale_.default,
    aten._amp_update_scale_.default,
}
CONVOLUTIONS = {aten.convolution.default, aten.conv2d.default}  # the second in inference mode
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "conv2d"}
# What takes a value from the device to the CPU, and so waits for all of its queue; those that answer with a number.
SCALARS = {aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default}
LOOKS = {*SCALARS, aten.nonzero.default, aten.equal.default}


class Card(NamedTuple):
    """A kind of GPU."""

    name: str
    capability: tuple[int, int]


CARDS = {
    "p100": Card("Tesla P100-PCIE-12GB", (6, 0)),
    "v100": Card("Tesla V100-SXM2-16GB", (7, 0)),
    "a100": Card("NVIDIA A100-SXM4-40GB", (8, 0)),
    "h100": Card("NVIDIA H100 80GB HBM3", (9, 0)),
}


class Watch(TorchDispatchMode):
    """Sees every kernel: counts waits for the device, the bytes that live, and the formats of matrix products."""

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self._fakes = fakes
        self.looks: list[str] = []
        self.products: set[torch.dtype] = set()
        self.strays: set[str] = set()
        self.peak = self._bytes = 0
        self._living: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, self._fake, (args, kwargs or {}))
        name = function.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if function in LOOKS or _leaves_the_gpu(function, given, kwargs):
            self.looks.append(name)
        if function in SCALARS:
            return 0.5 if args[0].is_floating_point() else 0
        if function in IN_PLACE:
            return args[0] if name == "_amp_update_scale_" else None
        if name in PRODUCTS:
            self.products |= {tensor.dtype for tensor in given if tensor.dim() > 1}
        if len({tensor.device.type for tensor in given if tensor.dim()}) > 1 and name not in ("_to_copy", "copy_"):
            self.strays.add(name)
        results = (_convolution if function in CONVOLUTIONS else function)(*args, **kwargs)
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and tensor.device.type == "cuda":
                self._note(tensor)
        return results

    def _fake(self, tensor: Tensor) -> Tensor:
        """Take a tensor that was made elsewhere, from a file or in another thread, for its shape."""
        return tensor if isinstance(tensor, FakeTensor) else self._fakes.from_tensor(tensor)

    def held(self) -> int:
        """Count the bytes that live on the GPU now."""
        self._living = {key: entry for key, entry in self._living.items() if not entry[0].expired()}
        self._bytes = sum(size for _, size in self._living.values())
        return self._bytes

    def most(self, work: Work) -> int:
        """Count the bytes that live at the peak of some work, beyond those before it."""
        before = self.peak = self.held()
        work()
        return self.peak - before

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._living and not self._living[storage._cdata][0].expired():
            return
        self._living[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._bytes += storage.nbytes()
        if self._bytes > self.peak:  # of which some may have been freed
            self.peak = max(self.peak, self.held())


@contextmanager
def fake_cuda(kind: str) -> Iterator[Watch]:
    """Make this process see one card of a kind, and watch what the code does to it."""
    card = CARDS[kind]
    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "get_device_capability": lambda device=None: card.capability,
        "get_device_name": lambda device=None: card.name,
        "get_arch_list": lambda: ARCHITECTURES,
        "is_bf16_supported": lambda including_emulation=True: card.capability >= (8, 0),
        "synchronize": lambda device=None: None,
    }
    with ExitStack() as stack:
        stack.enter_context(_device_guard())
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(fake_tensor, "init_gpu_context", lambda *device: None))
        stack.enter_context(patch.object(FakeTensorMode, "avoid_device_init", property(lambda mode: True)))
        stack.enter_context(patch.object(Tensor, "backward", _fill_gradients))
        stack.enter_context(_replaced_parameters())
        augment._statistics.cache_clear()
        stack.callback(augment._statistics.cache_clear)  # which would keep fakes for the next test
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", _FusedAttention.apply))
        yield stack.enter_context(Watch(stack.enter_context(FakeTensorMode())))


class Replays:
    """Stands in for CUDA graphs: a replay does the step again, as far as a fake can."""

    def __init__(self, device: torch.device) -> None:
        self.recorded = 0

    def warm_up(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        self.recorded += 1
        return work


class _FusedAttention(torch.autograd.Function):
    """Attention as a GPU's kernels keep it for the backward pass: what goes in and what comes out, no weights."""

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed = torch.empty_like(q)
        context.save_for_backward(q, k, v, mixed)
        return mixed


def _leaves_the_gpu(function: Any, given: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Tell whether a copy goes from the GPU to the CPU."""
    if function is aten._to_copy.default:
        return given[0].device.type == "cuda" and torch.device(kwargs.get("device") or "cuda").type == "cpu"
    if function is aten.copy_.default:
        return given[0].device.type == "cpu" and given[1].device.type == "cuda"
    return False


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    *_: Any,
) -> Tensor:
    """Make the result of a plain convolution; torch would ask cuDNN which of its ways it takes."""
    sizes = (
        (size + 2 * pad - kernel) // step + 1
        for size, pad, kernel, step in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
    )
    last = x.is_contiguous(memory_format=torch.channels_last)
    made = x.new_empty((x.shape[0], weight.shape[0], *sizes))
    return made.contiguous(memory_format=torch.channels_last) if last else made


@contextmanager
def _device_guard() -> Iterator[None]:
    """Give CUDA the guard of torch's meta device, which does nothing, instead of one that asks the driver.

    But for the device it is on: that is the first GPU.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * SLOTS).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    functions = (ctypes.c_void_p * FUNCTIONS).from_address(ctypes.c_void_p.from_address(guards[META] or 0).value or 0)
    assert DEVICE(functions[GET_DEVICE] or 0)(guards[META]) == 0xFF00 | META, "torch has another guard than 2.7's"
    first_gpu = DEVICE(lambda guard: CUDA)
    mine = type(functions)(*functions)
    mine[GET_DEVICE] = ctypes.cast(first_gpu, ctypes.c_void_p).value
    guard = ctypes.c_void_p(ctypes.addressof(mine))
    before, guards[CUDA] = guards[CUDA], ctypes.addressof(guard)
    try:
        yield
    finally:
        guards[CUDA] = before


@contextmanager
def _replaced_parameters() -> Iterator[None]:
    """Let Module.to put new parameters in the place of old ones: a fake cannot change its device."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _fill_gradients(loss: Tensor) -> None:
    """Give every parameter behind a loss a gradient; autograd itself would start threads for a real device."""
    seen, left = set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.empty_like(node.variable)
        left += [before for before, _ in node.next_functions]
