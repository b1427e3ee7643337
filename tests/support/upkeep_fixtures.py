"""A small sweep on disk with a run in each of four states, made of real records and checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from result_fixtures import make_result, write_result

from slurm.jobs import Snapshot, Submission
from sweep.config.load import load_sweep
from sweep.config.schema import Sweep
from sweep.plan.record import plan_record, planned_run
from sweep.status.folder import SweepFolder
from trainer.checkpoint import tensors as checkpoint
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.base import now
from trainer.records.files import write_json
from trainer.records.plan import PlannedRun
from trainer.records.process import Process, this_process
from trainer.records.recipe import Recipe
from trainer.records.result import History
from trainer.records.run import Bundle, CancelRequest, Commitment, Options, RunFolder
from trainer.records.status import ErrorRecord, Progress

EPOCHS = 4
TOKEN = "0a1b2c3d-0001"  # noqa: S105  # a submission's name, no secret
DATA = "0" * 64
DEAD = {"host": this_process().host, "pid": this_process().pid, "started": 1.0}  # our pid with another process's start


class Study:
    """A sweep file and its folder. Runs by state: done, stopped (two checkpoints), failed, cancelled."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sweep: Sweep = load_sweep(file)
        self.folder = SweepFolder(self.sweep.folder)
        planned = [planned_run(placed) for placed in self.sweep.runs]
        self.done, self.stopped, self.failed, self.cancelled = planned
        self.path = self.folder.path

    def run(self, planned: PlannedRun) -> RunFolder:
        return self.folder.run(planned.run.id)

    def commit(self, planned: PlannedRun, **changes: Any) -> None:
        self.run(planned).path.mkdir(parents=True, exist_ok=True)
        fields = {"run": planned.run, "training": planned.training, "data_fingerprint": DATA}
        write_json(self.run(planned).commitment, Commitment(**{**fields, **changes}))

    def attempt(self, planned: PlannedRun, number: int = 1, **changes: Any) -> None:
        folder = self.run(planned)
        folder.attempts.mkdir(parents=True, exist_ok=True)
        folder.logs.mkdir(exist_ok=True)
        folder.log(number).write_text("epoch 1\n")
        fields: dict[str, Any] = {
            "number": number,
            "started": now(),
            "host": "here",
            "job": f"{TOKEN}-1",
            "run_id": planned.run.id,
            "submission": TOKEN,
            "process": Process(**DEAD),
            "log": str(folder.log(number)),
        }
        write_json(folder.attempt(number), AttemptRecord(**{**fields, **changes}))

    def progress(self, planned: PlannedRun, epoch: int, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "run_id": planned.run.id,
            "attempt": 1,
            "job": f"{TOKEN}-1",
            "host": "here",
            "epoch": epoch,
            "epochs": EPOCHS,
            "step": 0,
            "steps": 9,
            "started": now(),
            "heartbeat": now(),
            "start_epoch": 0,
            "history": history_of(epoch),
        }
        write_json(self.run(planned).progress, Progress(**{**fields, **changes}))

    def checkpoint(
        self,
        planned: PlannedRun,
        epochs: int,
        *,
        run: dict[str, Any] | None = None,
        training: Recipe | None = None,
        data_fingerprint: str = DATA,
        **changes: Any,
    ) -> Path:
        fields: dict[str, Any] = {
            "commitment": Commitment(
                run=planned.run.model_copy(update=run),
                training=training or planned.training,
                data_fingerprint=data_fingerprint,
            ),
            "stretches": [],
            "attempt": 1,
            "history": history_of(epochs),
            "train_seconds": 1.0,
            "evaluation_seconds": 1.0,
            "threads": 1,
        }
        info = checkpoint.CheckpointInfo(**{**fields, **changes})
        return checkpoint.save(
            self.run(planned).checkpoints, info, {"weights": torch.arange(300.0), "step": torch.tensor(3)}
        )

    def finish(self, planned: PlannedRun) -> None:
        """Write the files of a run that was killed between its result and the removal of its checkpoints."""
        self.commit(planned)
        self.attempt(planned, outcome="done", end_epoch=EPOCHS)
        self.progress(planned, EPOCHS)
        write_result(self.path, make_result(planned))

    def make(self) -> None:
        self.finish(self.done)
        self.commit(self.stopped)
        self.attempt(self.stopped, outcome="interrupted", end_epoch=2, cause=Cause.KILLED)
        self.progress(self.stopped, 2)
        for epochs in (1, 2):
            self.checkpoint(self.stopped, epochs)
        self.commit(self.failed)
        self.attempt(self.failed, outcome="failed", cause=Cause.EXCEPTION)
        self.run(self.cancelled).path.mkdir()
        write_json(self.run(self.cancelled).cancel, CancelRequest(run_id=self.cancelled.run.id, requested=now()))
        write_json(
            self.run(self.failed).error,
            ErrorRecord(
                run_id=self.failed.run.id,
                cause=Cause.EXCEPTION,
                exception="ValueError",
                message="no",
                traceback="…",
                attempt=1,
                job=f"{TOKEN}-1",
                host="here",
                log="x",
                time=now(),
            ),
        )
        self.folder.submissions.mkdir()
        (self.folder.submissions / "word").write_text(TOKEN.partition("-")[0])
        ids = [placed.id for placed in self.sweep.runs]
        write_json(self.folder.submission(TOKEN), Submission(token=TOKEN, created=now(), executor="local", runs=ids))
        self.folder.jobs(TOKEN).array().mkdir(parents=True)
        write_json(
            self.folder.jobs(TOKEN).bundle(),
            Bundle(
                submission=TOKEN,
                pool="local",
                data=Path("data"),
                runs_folder=self.folder.runs,
                options=Options(),
                tasks=[[placed.spec for placed in self.sweep.runs]],
            ),
        )
        write_json(self.folder.plan, plan_record(self.sweep))
        write_json(self.folder.queue, Snapshot())


def history_of(epochs: int) -> History:
    return History(**{name: [0.5] * epochs for name in History.model_fields})


def tree(folder: Path) -> dict[str, tuple[str, bytes, int]]:
    """Return every entry below a folder: its kind, its bytes or target, and its modification time in ns."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            if path.is_symlink():
                kind, content = "link", str(path.readlink()).encode()
            elif path.is_dir():
                kind, content = "folder", b""
            else:
                kind, content = "file", path.read_bytes() if os.access(path, os.R_OK) else b"unreadable"
            found[str(path.relative_to(folder))] = (kind, content, path.lstat().st_mtime_ns)
    return found


def leave_unfinished(folder: Path, age_s: float, name: str = ".progress.json.0123456789ab.tmp") -> Path:
    """Create a half-written file of this age."""
    path = folder / name
    path.write_bytes(b'{"half')
    moment = path.stat().st_mtime - age_s
    os.utime(path, (moment, moment))
    return path


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A healthy sweep, in a folder with an awkward name."""
    file = tmp_path / "study.yaml"
    grid = {"architecture": ["resnet18"], "dataset": ["cifar10"], "ratio": [0.02, 0.05], "seed": [42, 43]}
    training = {"epochs": EPOCHS, "lr_milestones": [2]}
    output = tmp_path / "runs, 50% 'ünïcode'"
    file.write_text(json.dumps({"name": "study", "grid": grid, "training": training, "output": str(output)}))
    made = Study(file)
    made.make()
    return made
