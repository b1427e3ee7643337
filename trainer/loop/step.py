"""How the steps of an epoch are executed: as they are written, or recorded once as a CUDA graph and replayed.

What a step computes is `trainer.loop.trainer`'s. A step of a small network is some hundred kernels that a GPU is
through with before the CPU has launched them; a graph is one launch.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from trainer.data.augment import Boxes
from trainer.data.draws import Draws

WARM_UP = 3  # steps before the recording: libraries choose algorithms and make handles, which no recording may
WORTH_RECORDING = 20  # steps of a run; a recording takes about as long as some of them
AHEAD = 8  # replays that may wait for the GPU: it never idles, and the CPU still sees signals and shows that it lives

Work = Callable[[], None]
# Learn from the images with these indices (N,), each cut by its box (N,): all of a step, without a look at the device.
Update = Callable[[Tensor, Boxes], None]

log = logging.getLogger("trainer")


class Execution(Protocol):
    """Executes the steps of an epoch in their order, with the epoch's draws on the device."""

    def begin(self, draws: Draws) -> None:
        """Take an epoch's draws."""

    def __call__(self, step: int, update: Update) -> None:
        """Execute a step, the one after the step before."""


class EagerStep:
    """Executes each step as it is written."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._draws: Draws | None = None

    def begin(self, draws: Draws) -> None:
        self._draws = Draws(draws.order.to(self._device), draws.boxes.to(self._device))

    def __call__(self, step: int, update: Update) -> None:
        assert self._draws is not None
        update(self._draws.order[step], self._draws.boxes.take(step))


class Recorder(Protocol):
    """Turns work on a device into something that does the same work again, on the same memory."""

    def warm_up(self, work: Work) -> None:
        """Do the work as it will be recorded."""

    def record(self, work: Work) -> Work:
        """Record the work without doing it. Raises RuntimeError, with the device as before, if that cannot be."""


class CapturedStep:
    """Records the run's WARM_UP + 1st step and replays it from there on; the steps before are taken as written.

    An epoch's draws and a cursor into them stay in one place on the device, where the recorded step finds its row and
    moves on to the next. Recording computes nothing, so no step is taken twice and none is lost. forget: called after a
    recording that failed, to undo what the step's code has left; the run then goes on as written.
    """

    def __init__(self, device: torch.device, recorder: Recorder, forget: Work) -> None:
        self._recorder = recorder
        self._forget = forget
        self._cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self._draws: Draws | None = None
        self._taken = 0
        self._failed = False
        self._replay: Work | None = None

    def begin(self, draws: Draws) -> None:
        if self._draws is None:
            place = self._cursor.device
            self._draws = Draws(_copy(draws.order, place), Boxes(*(_copy(field, place) for field in draws.boxes)))
        else:
            for mine, theirs in zip((self._draws.order, *self._draws.boxes), (draws.order, *draws.boxes), strict=True):
                mine.copy_(theirs)
        self._cursor.zero_()

    def __call__(self, step: int, update: Update) -> None:
        def work() -> None:
            assert self._draws is not None
            row = [field.index_select(0, self._cursor).squeeze(0) for field in (self._draws.order, *self._draws.boxes)]
            update(row[0], Boxes(*row[1:]))
            self._cursor.add_(1)

        if self._replay is None and not self._failed and self._taken >= WARM_UP:
            self._record(work)
        self._taken += 1
        if self._replay:
            self._replay()
        elif self._failed:
            work()
        else:
            self._recorder.warm_up(work)

    def _record(self, work: Work) -> None:
        try:
            self._replay = self._recorder.record(work)
        except RuntimeError as error:
            self._failed = True
            self._forget()
            reason = str(error.__context__ or error).partition("\n")[0]
            log.warning("the training step could not be recorded as a CUDA graph, and goes on as written: %s", reason)


class CudaGraphs:
    """Records CUDA graphs, on a stream of its own that the warm-up uses too: libraries keep memory for each stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, work: Work) -> None:
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            work()
        outside.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        outside = torch.cuda.current_stream(self._device)
        pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(self._device):
            graph = torch.cuda.CUDAGraph()
            try:
                # thread_local: what other threads do on the device meanwhile does no harm to the recording.
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    work()
            except RuntimeError:
                torch.cuda.set_stream(outside)
                _leave_recording(graph, outside.device_index, pool)
                raise
        return _Replay(graph, self._device)


class _Replay:
    """Launches a graph, at most AHEAD times before the GPU is through with the first of them."""

    def __init__(self, graph: torch.cuda.CUDAGraph, device: torch.device) -> None:
        self._graph = graph
        self._device = device
        self._launched: deque[torch.cuda.Event] = deque()

    def __call__(self) -> None:
        if len(self._launched) < AHEAD:
            event = torch.cuda.Event(blocking=True)  # whoever waits for it leaves the core to others
        else:
            event = self._launched.popleft()
            event.synchronize()
        self._graph.replay()
        event.record(torch.cuda.current_stream(self._device))
        self._launched.append(event)


_ABANDONED: list[torch.cuda.CUDAGraph] = []  # torch's allocator may go on asking them whether a stream is theirs


def _leave_recording(graph: torch.cuda.CUDAGraph, device: int, pool: tuple[int, int]) -> None:
    """Bring torch's allocator and generator out of a recording that broke off; torch leaves them where they were.

    Otherwise the allocator could free nothing when memory runs short (pytorch#180395), and the generator would refuse
    to draw.
    """
    _ABANDONED.append(graph)
    graph.reset()
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # later versions of torch, and 2.7
    end = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
    with suppress(RuntimeError):  # the allocator is out already
        if end:
            end(device, pool)
            torch._C._cuda_releasePool(device, pool)
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, copy=True, memory_format=torch.contiguous_format)
