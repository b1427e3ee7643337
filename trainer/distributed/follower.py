"""A process that shares a run's replicas with process 0 and does as that says. It writes nothing but its complaints."""

import logging
import os
import signal
import threading
import traceback

import torch
from torch._C._distributed_c10d import Store

from trainer.data.prepared import open_dataset
from trainer.distributed.process_group import FAILURE, Failure, Order, Together, meeting_place, ready, receive
from trainer.loop.build import choose_images, make_trainer
from trainer.loop.device import choose_device
from trainer.loop.group import LeaveEpoch, LostError, agreed
from trainer.loop.trainer import DivergedError, Trainer
from trainer.records.attempt import ExitCode
from trainer.run.failure import cause_of
from trainer.stop import StopSignal

log = logging.getLogger("trainer")


def follow(rank: int, size: int, stop: StopSignal, *, child: bool) -> ExitCode:
    """Follow process 0 until it says that this is the end, or is gone.

    stop: left unheeded, for process 0 says when to stop. child: of process 0, whose end closes this one's standard
    input; wherever this one waits, it ends then. One of torchrun's can be ended by it until the first order.
    """
    logging.getLogger().setLevel(logging.WARNING)  # what there is to say, process 0 says
    if child:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    group = Together(rank, size)
    try:
        store = meeting_place()
        try:
            _Follower(group, store, stop).serve()
        except LostError:
            raise
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            told = Failure(rank=rank, cause=cause_of(error), words=words, traceback=traceback.format_exc())
            store.set(FAILURE, told.model_dump_json())
            return ExitCode.FAILED
        group.leave()
    except LostError as error:
        log.warning("process %d of %d ends, cut off from the others: %s", rank + 1, size, error)
        return ExitCode.INTERRUPTED
    return ExitCode.DONE


class _Follower:
    """Carries orders out, one after the other."""

    def __init__(self, group: Together, store: Store, stop: StopSignal) -> None:
        self.group = group
        self.stop = stop
        self.store = store
        self.trainer: Trainer | None = None

    def serve(self) -> None:
        """Raises LostError when process 0 is gone, and whatever goes wrong here."""
        number = 0
        while (order := receive(self.store, number)).kind != "end":
            match order.kind:
                case "load":
                    self.stop.install()
                    self.trainer = None  # its memory is needed
                    self.trainer = self._load(order)
                    self.store.set(ready(self.group.rank, number), "")
                case "state":
                    self._take_over(order)
                case "epoch":
                    self._train()
            number += 1

    def _load(self, order: Order) -> Trainer:
        assert order.spec is not None
        assert order.data is not None
        device = choose_device(order.device, rank=self.group.rank, processes=self.group.size)
        dataset = open_dataset(order.data, order.spec.run.dataset)
        return make_trainer(order.spec, dataset, choose_images(order.spec, dataset), device, self.group)

    def _take_over(self, order: Order) -> None:
        trainer = self.trainer
        assert trainer is not None
        torch.set_num_threads(order.threads)
        self.group.connect(self.store, trainer.device)
        if order.moments:
            trainer.optimizer.begin()
        self.group.copy_first(list(trainer.state().values()))
        trainer.history = order.history
        if trainer.scaler.is_enabled() and order.scaler:
            trainer.scaler.load_state_dict(order.scaler)

    def _train(self) -> None:
        assert self.trainer is not None
        try:
            self.trainer.run_epoch(agreed(_no_tick, self.group, self.trainer.device))
        except (LeaveEpoch, DivergedError) as reason:
            log.debug("left the epoch: %s", reason)


def _no_tick(step: int, steps: int) -> None:
    """Leave it to process 0 to look around."""


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(ExitCode.INTERRUPTED.value)
