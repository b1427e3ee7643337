"""What a finished run says of itself: its numbers, and what they were made on and with; written once."""

import errno
import os
import platform
from importlib import metadata

import torch

from trainer.loop.device import gpu_names
from trainer.loop.environment import cpu_name
from trainer.loop.trainer import Trainer
from trainer.models.build import parameter_count
from trainer.models.catalog import is_reference
from trainer.records.attempt import Attempt
from trainer.records.base import now
from trainer.records.code import code_state
from trainer.records.files import create_exclusive, patiently, to_json
from trainer.records.result import Best, DataRecord, Environment, Hardware, Result, Stretch, Timing
from trainer.records.run import RunFolder
from trainer.run.assignment import Assignment


def make_result(what: Assignment, trainer: Trainer, stretches: list[Stretch]) -> Result:
    """Describe a run whose last epoch is done, with the attempt under way as its last."""
    commitment, claim, manifest = what.commitment, what.claim, what.dataset.manifest
    record = claim.record
    this = record.summary().model_copy(update={"outcome": "done", "end_epoch": trainer.epoch, "ended": now()})
    attempts = [*(earlier.summary() for earlier in claim.earlier()), this]
    commit, dirty = code_state(what.code)
    return Result(
        run=commitment.run,
        training=commitment.training,
        training_hash=commitment.training.hash,
        data=DataRecord(
            fingerprint=manifest.fingerprint,
            train_samples=len(trainer.train.labels),
            val_samples=len(trainer.val.labels),
            classes=len(manifest.classes),
        ),
        parameters=parameter_count(trainer.model),
        history=trainer.history,
        best=Best.of(trainer.history),
        timing=Timing(
            train_seconds=round(trainer.train_seconds, 3),
            evaluation_seconds=round(trainer.evaluation_seconds, 3),
            total_seconds=round(sum(_seconds(attempt) for attempt in attempts), 3),
        ),
        hardware=Hardware(
            host=record.host,
            cpu=cpu_name(),
            gpus=gpu_names(trainer.device, trainer.group.size),
            pool=what.pool,
            device=str(trainer.device) if trainer.group.size == 1 else trainer.device.type,
            precision=trainer.precision,
            stretches=stretches,
        ),
        environment=Environment(
            python=platform.python_version(),
            torch=torch.__version__,
            torchvision=_version("torchvision"),
            cuda=torch.version.cuda if trainer.device.type == "cuda" else None,
            git_commit=commit,
            git_dirty=dirty,
            slurm_job_id=os.environ.get("SLURM_JOB_ID"),
            own_code=what.code.own if what.code and is_reference(commitment.run.architecture) else None,
        ),
        attempts=attempts,
    )


def write_result(folder: RunFolder, result: Result) -> bool:
    """Write a run's result unless another attempt has written one. Returns whether it did.

    Raises OSError, also where what is read back is not what was written.
    """
    content = to_json(result)

    def write() -> bool:
        written = create_exclusive(folder.result, content)
        if written and folder.result.read_bytes() != content:
            folder.result.unlink()
            raise OSError(
                errno.EIO, f"{os.strerror(errno.EIO)}; it was read back as something else", str(folder.result)
            )
        return written

    return patiently(write)


def _version(package: str) -> str:
    """The version of a package that is not worth its import."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _seconds(attempt: Attempt) -> float:
    return (attempt.ended - attempt.started).total_seconds() if attempt.ended else 0.0
