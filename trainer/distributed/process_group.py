"""Several processes of one run through torch.distributed: gradients averaged, and process 0's word to the others.

Gradients go in one flat all-reduce a step rather than through DistributedDataParallel: the same fused optimiser, loss
scale and captured step as on one device, no hooks, no buffers sent at every forward. What DDP would hide behind the
backward pass is one exchange of the gradients (ResNet-18: 45 MB). Imported only where there are several processes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from trainer.loop.group import Group, LostError
from trainer.records.attempt import Cause
from trainer.records.base import Record
from trainer.records.gpu_errors import BROKEN, FULL

# A process that ends is noticed at once, by its connections. This bounds the wait for one that lives and is stuck, and
# must outlast all that one may do while the others wait: read a dataset, wait for a slow disk.
PATIENCE = timedelta(minutes=30)
FAILURE = "failure"  # where in the store a process says why it failed
NOTHING = -1  # the length of words that are not there


class Failure(Record):
    """Why a process other than 0 ended."""

    rank: int
    cause: Cause
    words: str
    traceback: str


class ProcessGroup(Group):
    """One of the processes that share a run's replicas."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.connected = False
        # gloo's threads let go of a tensor some time after its exchange. Should they be the last to, they need Python's
        # lock, which the end of the group holds while it waits for these threads: for ever (torch 2.7). So what was
        # exchanged last stays here.
        self._exchanged: deque[Tensor] = deque(maxlen=4)

    def connect(self, store: Store) -> None:
        """Meet the others, who find each other in the store. Raises LostError."""
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        with reaching():
            store.set(ready(self.rank), "")
            place = PrefixStore("group", store)
            dist.init_process_group(backend, store=place, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        self.connected = True

    def leave(self, *, at_once: bool = False) -> None:
        """Close the connections; at_once: without a wait for what is under way, perhaps with processes now dead."""
        if self.connected:
            self.connected = False
            with reaching():
                dist.distributed_c10d._abort_process_group() if at_once else dist.destroy_process_group()

    def average_gradients(self, model: nn.Module) -> None:
        def mean(flat: Tensor) -> None:
            dist.all_reduce(flat)
            flat /= self.size

        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        _exchange(gradients, mean)

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        _exchange(tensors, dist.all_reduce)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        _exchange(tensors, lambda flat: dist.broadcast(flat, src=0))

    def broadcast_words(self, words: str | None = None) -> str | None:
        content = (words or "").encode()
        length = torch.tensor([NOTHING if words is None else len(content)])
        self._broadcast(length)
        if length.item() == NOTHING:
            return None
        letters = torch.tensor(list(content), dtype=torch.uint8)
        whole = letters if self.rank == 0 else torch.empty(int(length.item()), dtype=torch.uint8)
        self._broadcast(whole)
        return bytes(whole.tolist()).decode()

    def agree(self, stop: bool = False) -> bool:
        answer = torch.tensor([stop], dtype=torch.uint8)
        self._broadcast(answer)
        return bool(answer.item())

    def _broadcast(self, tensor: Tensor) -> None:
        self._exchanged.append(tensor)
        with reaching():
            dist.broadcast(tensor, src=0)


def _exchange(tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
    """Send tensors as one, in the order of their memory, which is dense and laid out alike in all processes."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        flats = [tensor.detach().as_strided((tensor.numel(),), (1,)) for tensor in tensors if tensor.dtype is dtype]
        whole = torch.cat(flats)
        with reaching():
            exchange(whole)
        torch._foreach_copy_(flats, list(torch.split(whole, [flat.numel() for flat in flats])))


@contextmanager
def reaching() -> Iterator[None]:
    """Raise LostError for what torch.distributed raises, unless a GPU that is full or broken is behind it.

    Its errors are RuntimeErrors of many words, of which NCCL's last line says most.
    """
    try:
        yield
    except RuntimeError as error:
        words = str(error).strip()
        if FULL.search(words) or BROKEN.search(words):
            raise
        first, _, rest = words.partition("\n")
        last = rest.strip().rpartition("\n")[2] if "Last error:" in rest else ""
        raise LostError(f"{first}: {last}" if last else first) from error


def meeting_place() -> Store:
    """The store that the environment names, as torchrun sets it. Raises LostError."""
    with reaching():
        found: tuple[Store, int, int] = next(rendezvous("env://", timeout=PATIENCE))
    store, _, _ = found
    store.set_timeout(PATIENCE)
    return store


def ready(rank: int) -> str:
    """The key in the store by which a process says that it has come."""
    return f"ready-{rank}"
