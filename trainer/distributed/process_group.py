"""Several processes of one run through torch.distributed: gradients averaged, and process 0's word to the others.

Gradients go in one flat all-reduce a step rather than through DistributedDataParallel: the same fused optimiser, loss
scale and captured step as on one device, no hooks, no buffers sent at every forward. What DDP would hide behind the
backward pass is one exchange of the gradients (ResNet-18: 45 MB). Imported only where there are several processes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from trainer.loop.group import Alone, LostError
from trainer.records.attempt import Cause
from trainer.records.base import Record
from trainer.records.result import History
from trainer.records.run import RunSpec

# A process that ends is noticed at once, by its connections. This bounds the wait for one that lives and is stuck, and
# must outlast all that one may do while the others wait: read a dataset, wait for a slow disk.
PATIENCE = timedelta(minutes=30)
FAILURE = "failure"  # where a process says why it failed


class Order(Record):
    """What process 0 has the others do next.

    load: put a run together. state: take over process 0's weights and go on after this history. epoch: train one.
    end: nothing any more.
    """

    kind: Literal["load", "state", "epoch", "end"]
    spec: RunSpec | None = None
    data: Path | None = None
    device: str = "cpu"
    threads: int = 1
    history: History = History()
    scaler: dict[str, int | float] = {}
    moments: bool = False


class Failure(Record):
    """Why a process other than 0 ended."""

    rank: int
    cause: Cause
    words: str
    traceback: str


class Together(Alone):
    """One of the processes that share a run's replicas; connected when the first run is put together."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.connected = False

    def connect(self, store: Store, device: torch.device) -> None:
        """Meet the others, unless that is done; store: where all find each other. Raises LostError."""
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if self.connected:
            return
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        place = PrefixStore("group", store)
        with _reaching():
            dist.init_process_group(backend, store=place, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        self.connected = True

    def leave(self, *, at_once: bool = False) -> None:
        """Close the connections; at_once: without a wait for what is under way, perhaps with processes now dead."""
        if self.connected:
            self.connected = False
            with _reaching():
                dist.distributed_c10d._abort_process_group() if at_once else dist.destroy_process_group()

    def average_gradients(self, model: nn.Module) -> None:
        def mean(flat: Tensor) -> None:
            dist.all_reduce(flat)
            flat /= self.size

        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        _exchange(gradients, mean)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        _exchange(tensors, dist.all_reduce)

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        _exchange(tensors, lambda flat: dist.broadcast(flat, src=0))

    def agree(self, stop: bool) -> bool:
        answer = torch.tensor([stop], dtype=torch.uint8)
        with _reaching():
            dist.broadcast(answer, src=0)
        return bool(answer.item())


def _exchange(tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
    """Send tensors as one, in the order of their memory, which is dense and laid out alike in all processes."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        flats = [tensor.detach().as_strided((tensor.numel(),), (1,)) for tensor in tensors if tensor.dtype is dtype]
        whole = torch.cat(flats)
        with _reaching():
            exchange(whole)
        torch._foreach_copy_(flats, list(torch.split(whole, [flat.numel() for flat in flats])))


@contextmanager
def _reaching() -> Iterator[None]:
    """Raise LostError for what torch.distributed raises: its errors are RuntimeErrors of many words."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(str(error).strip().partition("\n")[0]) from error


def send(store: Store, number: int, order: Order) -> None:
    """Give the others their next order, counted from 0. Raises LostError."""
    with _reaching():
        store.set(f"order-{number}", order.model_dump_json())


def receive(store: Store, number: int) -> Order:
    """Wait for an order of process 0. Raises LostError."""
    with _reaching():
        return Order.model_validate_json(store.get(f"order-{number}"))


def meeting_place() -> Store:
    """Give the store that the environment names, as torchrun sets it. Raises LostError."""
    with _reaching():
        found: tuple[Store, int, int] = next(rendezvous("env://", timeout=PATIENCE))
    store, _, _ = found
    store.set_timeout(PATIENCE)
    return store


def ready(rank: int, number: int) -> str:
    """Give the key by which a process says that it has done what an order told it to load."""
    return f"ready-{rank}-{number}"
