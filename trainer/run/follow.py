"""A process that shares a run's replicas with process 0: the same training, without claim, files and signals."""

import logging
import os
import signal
import sys
import threading
import traceback
from typing import NoReturn

from trainer.data.prepared import open_dataset
from trainer.distributed.process_group import FAILURE, Failure, ProcessGroup, meeting_place
from trainer.loop.build import Work, broadcast_state, choose_images, make_trainer
from trainer.loop.cause import cause_of
from trainer.loop.device import choose_device
from trainer.loop.group import LostError, StoppedByRank0
from trainer.loop.trainer import DivergedError, train
from trainer.records.attempt import ExitCode
from trainer.stop import StopSignal

log = logging.getLogger("trainer")


def follow(rank: int, size: int, stop: StopSignal, *, child: bool) -> ExitCode:
    """Train run after run with process 0, until it says that there are no more, or is gone.

    stop: left unheeded, for process 0 says when to stop. child: of process 0, whose end closes this one's standard
    input; wherever this one waits, it ends then. One of torchrun's can be ended by it until the first run.
    """
    logging.getLogger().setLevel(logging.WARNING)  # what there is to say, process 0 says
    if child:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    group = ProcessGroup(rank, size)
    try:
        store = meeting_place()
        group.connect(store)
        try:
            while (work := group.broadcast_words()) is not None:
                stop.install()
                _train_part(Work.model_validate_json(work), group)
        except LostError:
            raise
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            told = Failure(rank=rank, cause=cause_of(error), words=words, traceback=traceback.format_exc())
            store.set(FAILURE, told.model_dump_json())
            _end(ExitCode.FAILED)
        group.leave()
    except LostError as error:
        log.warning("process %d of %d ends, cut off from the others: %s", rank + 1, size, error)
        _end(ExitCode.INTERRUPTED)
    return ExitCode.DONE


def _train_part(work: Work, group: ProcessGroup) -> None:
    device = choose_device(work.device, rank=group.rank, processes=group.size)
    dataset = open_dataset(work.data, work.spec.run.dataset)
    trainer = make_trainer(work.spec, dataset, choose_images(work.spec, dataset), device, group)
    broadcast_state(trainer)
    try:
        train(trainer, lambda step, steps: None, lambda: None)
    except (StoppedByRank0, DivergedError) as reason:
        log.debug("left the run: %s", reason)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    _end(ExitCode.INTERRUPTED)


def _end(code: ExitCode) -> NoReturn:
    """End in the middle of an exchange: gloo's threads, at it still, now and then abort an orderly end (torch 2.7)."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code.value)
