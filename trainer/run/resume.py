"""Where a run goes on: at its newest good checkpoint, or at its beginning; alike in all of its processes."""

import torch

from trainer.checkpoint.tensors import Checkpoint, newest_good
from trainer.checkpoint.writer import CheckpointWriter
from trainer.loop.build import ResumePoint, broadcast_state
from trainer.loop.trainer import StateError, Trainer
from trainer.records.checkpoint_file import CheckpointError
from trainer.run.assignment import Assignment
from trainer.run.computing import Computing
from trainer.run.pulse import Pulse
from trainer.run.saving import Saving


def resume(what: Assignment, trainer: Trainer, pulse: Pulse) -> Saving:
    """Bring a trainer to where its run goes on. Returns what saves it from there. pulse: told what is of note.

    Raises CheckpointError where there is a whole checkpoint that this run cannot go on from.
    """
    found, passed_over = newest_good(what.folder.checkpoints, what.commitment)
    for reason in passed_over.values():
        pulse.note(f"checkpoint passed over: {reason}")
    computing = Computing(found.info if found else None, what.options.threads)
    if found:
        _restore(trainer, found)
    differs = computing.go_on(trainer)
    if differs:
        pulse.note(differs)
    point = ResumePoint(
        history=trainer.history,
        scaler=trainer.scaler_state(),
        moments=bool(trainer.optimizer.state),
        threads=torch.get_num_threads(),
    )
    broadcast_state(trainer, point)
    writer = CheckpointWriter(what.folder.checkpoints, what.claim.check, saved=trainer.epoch, passed_over=passed_over)
    interval_s = what.options.checkpoint_interval_s
    return Saving(what.commitment, what.claim.record.number, computing, writer, interval_s)


def _restore(trainer: Trainer, found: Checkpoint) -> None:
    info = found.info
    try:
        trainer.restore(
            found.tensors,
            info.history,
            train_seconds=info.train_seconds,
            evaluation_seconds=info.evaluation_seconds,
            scaler=info.scaler,
        )
    except StateError as error:
        architecture = info.commitment.run.architecture
        reason = f"is of another {architecture} than this version's: {error}; move it away to start anew"
        raise CheckpointError(found.path, reason) from error
