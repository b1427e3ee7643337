"""One attempt at one run, from its claim to its result: the files around the loop.

Owns the order of writes: claim, commitment, progress as it goes, checkpoints, and last the result or the error.
"""

import logging
import math
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from trainer import checkpoint
from trainer.claim import HEARTBEAT_S, Claim, StoodBack, take
from trainer.commitment import check_commitment, choose_images, is_done
from trainer.data.catalog import DATASETS
from trainer.data.prepared import PreparedDataset, open_dataset
from trainer.device import choose_device, cpu_name, git_state, gpu_names, resolve_precision
from trainer.files import clear_unfinished, write_json
from trainer.loop import DivergedError, Split, Trainer
from trainer.models.build import parameter_count
from trainer.records import (
    Attempt,
    Best,
    Cause,
    Commitment,
    DataRecord,
    Environment,
    ErrorRecord,
    ExitCode,
    Hardware,
    Options,
    Progress,
    Result,
    RunFolder,
    RunSpec,
    Timing,
    now,
)
from trainer.stop import Cancelled, ClaimLost, Interrupted, StopSignal

log = logging.getLogger("trainer")

DEFAULT_THREADS = torch.get_num_threads()  # torch's own choice, before any run changes it


class Job(NamedTuple):
    """What starts the attempt: the executor's name for the job, its submission (None by hand), the pool.

    restarts: how often the scheduler has started this job anew.
    """

    id: str
    submission: str | None
    pool: str
    restarts: int = 0


def execute(spec: RunSpec, folder: RunFolder, data: Path, job: Job, options: Options, stop: StopSignal) -> ExitCode:
    """Train a run to its result, continuing from its newest good checkpoint.

    A run that is done is left alone. Raises UsageError, DataError or DeviceError, before anything is written, when the
    run cannot be what is asked for; every failure after that is recorded in the folder and answered by the exit code.
    """
    run = spec.run
    if is_done(folder, spec):
        log.info("%s is done", run.id)
        return ExitCode.DONE
    dataset = open_dataset(data, run.dataset)
    device = choose_device(options.device)
    commitment = Commitment(run=run, training=spec.training, data_fingerprint=dataset.manifest.fingerprint)
    check_commitment(folder, commitment)
    kept = choose_images(spec, dataset)
    try:
        claim = take(folder, run_id=run.id, job=job.id, submission=job.submission, restarts=job.restarts)
    except StoodBack as error:
        log.info("%s", error)
        return ExitCode.STOOD_BACK
    if is_done(folder, spec):  # finished by the previous owner while this process looked
        claim.withdraw()
        return ExitCode.DONE
    with _log_file(folder.log(claim.record.number)):
        return _Attempt(commitment, folder, claim, dataset, kept, device, job, options, stop).run()


def record_refusal(spec: RunSpec, folder: RunFolder, job: Job, error: Exception) -> None:
    """Leave the reason in a run's folder when `execute` refused it and no one reads this process's output.

    Leaves it be when the run is someone else's by now. Raises OSError if the folder cannot be written.
    """
    try:
        claim = take(folder, run_id=spec.run.id, job=job.id, submission=job.submission, restarts=job.restarts)
        with _log_file(folder.log(claim.record.number)):
            _record_failure(folder, claim, error, Cause.EXCEPTION, end_epoch=0)
    except (StoodBack, ClaimLost) as reason:
        log.info("%s", reason)


@dataclass
class _Attempt:
    """The state of one attempt while it lasts."""

    commitment: Commitment
    folder: RunFolder
    claim: Claim
    dataset: PreparedDataset
    kept: npt.NDArray[np.int64]
    device: torch.device
    job: Job
    options: Options
    stop: StopSignal
    notes: list[str] = field(default_factory=list)
    trainer: Trainer | None = None
    last_heartbeat: float = -math.inf

    @property
    def epoch(self) -> int:
        return self.trainer.epoch if self.trainer else 0

    def run(self) -> ExitCode:
        """Train to the end, or to whatever ends it, and record which it was."""
        try:
            return self._run()
        except ClaimLost as reason:
            log.error("%s; this process stops without writing", reason)
            return ExitCode.STOOD_BACK

    def _run(self) -> ExitCode:
        run_id = self.commitment.run.id
        try:
            self._train()
        except Interrupted as reason:
            self.claim.close("interrupted", self.epoch, Cause.KILLED, str(reason))
            log.warning("%s %s after %d epochs; the next call continues", run_id, reason, self.epoch)
            return ExitCode.INTERRUPTED
        except Cancelled as reason:
            self.claim.close("cancelled", self.epoch, message=str(reason))
            log.warning("%s cancelled after %d epochs", run_id, self.epoch)
            return ExitCode.INTERRUPTED
        except ClaimLost:
            raise
        except Exception as error:  # whatever ends a run is recorded; nothing is swallowed
            _record_failure(self.folder, self.claim, error, cause_of(error), self.epoch)
            return ExitCode.FAILED
        self.claim.close("done", self.epoch)
        return ExitCode.DONE

    def _train(self) -> None:
        recipe = self.commitment.training
        write_json(self.folder.commitment, self.commitment)
        self.folder.error.unlink(missing_ok=True)
        for folder in (self.folder.path, self.folder.checkpoints):
            clear_unfinished(folder)
        trainer = self.trainer = self._set_up()
        self.claim.update(start_epoch=trainer.epoch, end_epoch=trainer.epoch)
        self._heartbeat(0, trainer.steps)
        saved = time.monotonic()
        while trainer.epoch < recipe.epochs:
            trainer.run_epoch(self._tick)
            self._heartbeat(trainer.steps, trainer.steps)
            _log_epoch(trainer, recipe.epochs)
            if trainer.epoch < recipe.epochs and time.monotonic() - saved >= self.options.checkpoint_interval_s:
                self._save(trainer)
                saved = time.monotonic()
        self.claim.check()
        write_json(self.folder.result, self._result(trainer))
        for path in checkpoint.list_checkpoints(self.folder.checkpoints):
            path.unlink()

    def _set_up(self) -> Trainer:
        run, recipe = self.commitment.run, self.commitment.training
        labels = self.dataset.labels("train")
        images = self.dataset.images("train")
        precision = resolve_precision(recipe.precision, self.device)
        trainer = Trainer(
            architecture=run.architecture,
            dataset=DATASETS[run.dataset],
            classes=len(self.dataset.manifest.classes),
            recipe=recipe,
            seed=run.seed,
            precision=precision,
            train=Split.from_arrays(images[self.kept], labels[self.kept], self.device),
            val=Split.from_arrays(self.dataset.images("val"), self.dataset.labels("val"), self.device),
        )
        found, self.notes = checkpoint.newest_good(
            self.folder.checkpoints,
            run_id=run.id,
            training_hash=recipe.hash,
            data_fingerprint=self.commitment.data_fingerprint,
        )
        for note in self.notes:
            log.warning("checkpoint passed over: %s", note)
        self._use_threads(found.info.threads if found else self.options.threads or DEFAULT_THREADS)
        if found:
            info = found.info
            trainer.restore(
                found.tensors,
                info.history,
                train_seconds=info.train_seconds,
                evaluation_seconds=info.evaluation_seconds,
                scaler=info.scaler,
            )
        log.info(
            "%s attempt %d on %s, %s: %d training images, %d steps of %d × %d, from epoch %d of %d",
            run.id,
            self.claim.record.number,
            self.device,
            precision,
            len(self.kept),
            trainer.steps,
            recipe.replicas,
            trainer.batch,
            trainer.epoch,
            recipe.epochs,
        )
        return trainer

    def _use_threads(self, wanted: int) -> None:
        """Compute with the threads the run began with; with fewer where there are fewer cores, and say so."""
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else wanted
        if wanted > available:
            self.notes.append(f"goes on with {available} threads instead of {wanted}: the last bits may differ")
            log.warning("%s", self.notes[-1])
        torch.set_num_threads(min(wanted, available))

    def _tick(self, step: int, steps: int) -> None:
        self.stop.check()
        if time.monotonic() - self.last_heartbeat >= HEARTBEAT_S:
            self._heartbeat(step, steps)

    def _heartbeat(self, step: int, steps: int) -> None:
        """Show that the run lives and how far it is; see whether it should not."""
        self.claim.check()
        if self.folder.cancel.exists():
            raise Cancelled("cancelled by 'sweep cancel'")
        assert self.trainer is not None
        record = self.claim.record
        write_json(
            self.folder.progress,
            Progress(
                run_id=record.run_id,
                attempt=record.number,
                job=record.job,
                host=record.host,
                epoch=self.trainer.epoch,
                epochs=self.commitment.training.epochs,
                step=step,
                steps=steps,
                started=record.started,
                heartbeat=now(),
                start_epoch=record.start_epoch,
                history=self.trainer.history,
                notes=self.notes,
            ),
        )
        self.last_heartbeat = time.monotonic()

    def _save(self, trainer: Trainer) -> None:
        self.claim.check()
        info = checkpoint.CheckpointInfo(
            run_id=self.commitment.run.id,
            training_hash=self.commitment.training.hash,
            data_fingerprint=self.commitment.data_fingerprint,
            attempt=self.claim.record.number,
            history=trainer.history,
            train_seconds=trainer.train_seconds,
            evaluation_seconds=trainer.evaluation_seconds,
            threads=torch.get_num_threads(),
            scaler=trainer.scaler_state(),
        )
        checkpoint.save(self.folder.checkpoints, info, trainer.state())

    def _result(self, trainer: Trainer) -> Result:
        manifest = self.dataset.manifest
        record = self.claim.record
        this = record.summary().model_copy(update={"outcome": "done", "end_epoch": trainer.epoch, "ended": now()})
        attempts = [*(earlier.summary() for earlier in self.claim.earlier()), this]
        commit, dirty = git_state(Path(__file__).parent)
        return Result(
            run=self.commitment.run,
            training=self.commitment.training,
            training_hash=self.commitment.training.hash,
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
                gpus=gpu_names(self.device),
                pool=self.job.pool,
                device=str(self.device),
                precision=trainer.precision,
            ),
            environment=Environment(
                python=platform.python_version(),
                torch=torch.__version__,
                torchvision=torchvision.__version__,
                cuda=torch.version.cuda if self.device.type == "cuda" else None,
                git_commit=commit,
                git_dirty=dirty,
                slurm_job_id=os.environ.get("SLURM_JOB_ID"),
            ),
            attempts=attempts,
        )


def _record_failure(folder: RunFolder, claim: Claim, error: Exception, cause: Cause, end_epoch: int) -> None:
    """Write error.json and close the attempt as failed."""
    record = claim.record
    message = str(error).strip() or type(error).__name__
    log.error("%s failed (%s) in epoch %d", record.run_id, cause.value, end_epoch, exc_info=error)
    claim.check()
    write_json(
        folder.error,
        ErrorRecord(
            run_id=record.run_id,
            cause=cause,
            exception=type(error).__name__,
            message=message,
            traceback="".join(traceback.format_exception(error)),
            attempt=record.number,
            job=record.job,
            host=record.host,
            log=record.log,
            time=now(),
        ),
    )
    claim.close("failed", end_epoch, cause, message)


def cause_of(error: Exception) -> Cause:
    """Name the cause of a failure by its exception."""
    if isinstance(error, DivergedError):
        return Cause.DIVERGED
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return Cause.CUDA_OOM
    # A CPU allocation that fails is a plain RuntimeError; only its words tell.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return Cause.HOST_OOM
    return Cause.EXCEPTION


def _log_epoch(trainer: Trainer, epochs: int) -> None:
    history = trainer.history
    log.info(
        "epoch %d/%d: train loss %.4f accuracy %.4f, val loss %.4f accuracy %.4f, %.2f s",
        trainer.epoch,
        epochs,
        history.train_loss[-1],
        history.train_accuracy[-1],
        history.val_loss[-1],
        history.val_accuracy[-1],
        history.epoch_seconds[-1],
    )


def _seconds(attempt: Attempt) -> float:
    return (attempt.ended - attempt.started).total_seconds() if attempt.ended else 0.0


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Write what is logged to the attempt's own file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
