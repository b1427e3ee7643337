"""Several processes share a run's replicas: the same numbers as one, and no process is left when one of them ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from conftest import SUPPORT, TRAINING, Command, metrics, read, wait_for
from networks import REFERENCE
from rounding import CONVOLUTION, RESNET_LAYERS, rounding
from shared_files import SAMPLES
from training_fixtures import call

from trainer.data.prepare import prepare
from trainer.data.synthesize import synthesize
from trainer.records.checkpoint_file import checkpoint_name
from trainer.records.files import write_json
from trainer.records.process import of_torchrun
from trainer.records.recipe import Recipe, sharing_problem
from trainer.records.run import Bundle, Options, Run, RunSpec

ENDED_S = 60.0
EPOCHS = 10  # of which a kill after the first few leaves some
NETWORKS = {"resnet18": "resnet18", "vit": "vit", "small": REFERENCE}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the sample of the real CIFAR-10, or drawn images where that is not on this machine."""
    folder = tmp_path_factory.mktemp("images")
    real = SAMPLES / "cifar-10-python.tar.gz"
    source = real if real.exists() else synthesize("cifar10", folder / "archives", train=2500, val=1000)
    prepare("cifar10", str(source), folder, unofficial=True)
    return folder


@pytest.mark.slow
def test_four_processes_compute_what_one_device_does(trainer: Command, images: Path, tmp_path: Path) -> None:
    """An epoch of real images, then an evaluation: losses up to rounding, the same accuracies; a user's network too.

    AdamW's epsilon is of the gradients' size. Beside a smaller one a step is as long for gradients that are summed and
    not averaged, and for one that is all rounding. The runs are of one bundle: the processes go on with the next.
    """
    recipe = Recipe(epochs=1, batch_size=16, epsilon=1e-3, dropout=0.0, lr_milestones=())
    for processes in (1, 4):
        parts = {"submission": "word-0001", "pool": "local", "data": images, "runs_folder": tmp_path / str(processes)}
        specs = [
            RunSpec(run=Run(id=name, architecture=network, dataset="cifar10", ratio=0.05, seed=42), training=recipe)
            for name, network in NETWORKS.items()
        ]
        (tmp_path / str(processes)).mkdir()
        file = tmp_path / f"bundle-{processes}.json"
        write_json(file, Bundle(**parts, options=Options(device="cpu", processes=processes), tasks=[specs]))
        trainer("--bundle", file)
    tolerance = rounding(torch.float32, terms=CONVOLUTION, depth=2 * RESNET_LAYERS)  # there and back
    for name in NETWORKS:
        one, four = (read(tmp_path / str(processes) / name / "result.json") for processes in (1, 4))
        for metric in ("train_loss", "val_loss"):
            assert four["history"][metric] == pytest.approx(one["history"][metric], rel=tolerance), (name, metric)
        for metric in ("train_accuracy", "val_accuracy"):
            assert four["history"][metric] == one["history"][metric], (name, metric)
        assert four["hardware"]["stretches"][0]["device"].endswith(" in 4 processes")


@pytest.mark.slow
def test_processes_killed_and_stopped_resume_to_the_same_result(trainer: Command, data: Path, tmp_path: Path) -> None:
    """One of two is killed, then the other, then both are told to stop: none is left, and nothing is lost.

    A follower that is killed takes process 0 with it the same way, so that whoever started that takes notice. The
    history is the uninterrupted one's to the last bit, dropout included.
    """

    def arguments(folder: str) -> list[object]:
        how = ("--ratio", 0.25, "--processes", 2, "--checkpoint-interval", 0)
        return call(data, tmp_path / folder, *how, epochs=EPOCHS)

    trainer(*arguments("whole"))
    folder = tmp_path / "run"

    def start(epoch: int) -> list[psutil.Process]:
        process = trainer.start(*arguments("run"))
        saved = [folder / "checkpoints" / checkpoint_name(number) for number in range(epoch, EPOCHS)]
        wait_for(lambda: any(path.exists() for path in saved), f"a checkpoint after epoch {epoch}")
        first = psutil.Process(process.pid)
        return [first, *first.children()]

    for victim, epoch in ((1, 1), (0, 2)):
        found = start(epoch)
        assert len(found) == 2
        found[victim].kill()
        said = trainer.started[-1].communicate(timeout=ENDED_S)[1]
        assert trainer.started[-1].returncode == -signal.SIGKILL
        assert ("process 2 of 2 was killed by SIGKILL" in said) == (victim == 1)
        assert not psutil.wait_procs(found, ENDED_S)[1]
    found = start(4)
    for process in reversed(found):
        process.terminate()
    assert trainer.started[-1].wait(ENDED_S) == 75
    assert not psutil.wait_procs(found, ENDED_S)[1]
    attempts = [read(folder / "attempts" / f"000{number}.json") for number in (1, 2, 3)]
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted"] * 3
    assert [attempt["start_epoch"] > 0 for attempt in attempts] == [False, True, True]
    assert "SIGTERM" in attempts[2]["message"]
    assert list((folder / "checkpoints").glob("*.safetensors"))
    trainer(*arguments("run"))
    assert metrics(folder / "result.json") == metrics(tmp_path / "whole" / "result.json")
    assert len(read(folder / "result.json")["attempts"]) == 4


# Of the processes that follow, the first fails as it loads, the second at its first step; the third does well.
FAULTS = """
import pathlib, sys
if "--follow" in sys.orig_argv:
    import numpy
    lives = pathlib.Path(__file__).with_name("lives")
    life = lives.stat().st_size if lives.exists() else 0
    lives.write_text("." * (life + 1))
    well = numpy.load
    def load(*arguments, **named):
        import torch
        from trainer.loop.trainer import Trainer
        def update(*arguments):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        if life == 0:
            raise MemoryError("no room for the images")
        if life == 1:
            Trainer._update = update
        return well(*arguments, **named)
    numpy.load = load
"""


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_the_next_run_has_another(data: Path, tmp_path: Path) -> None:
    """A run has failed of what any process did, in process 0's records; the bundle goes on with fresh processes."""
    (tmp_path / "sitecustomize.py").write_text(FAULTS)
    path = os.pathsep.join([str(tmp_path), SUPPORT])
    run = Run(id="", architecture=REFERENCE, dataset="cifar10", ratio=0.5, seed=42)
    recipe = Recipe(epochs=1, batch_size=4)
    specs = [RunSpec(run=run.model_copy(update={"id": name}), training=recipe) for name in ("load", "step", "well")]
    parts = {"submission": "word-0001", "pool": "local", "data": data, "runs_folder": tmp_path}
    write_json(tmp_path / "bundle.json", Bundle(**parts, options=Options(device="cpu", processes=2), tasks=[specs]))
    trainer = Command("trainer", tmp_path, {"PYTHONPATH": path})
    try:
        trainer("--bundle", tmp_path / "bundle.json", expect=1)
    finally:
        trainer.end()
    errors = [read(tmp_path / name / "error.json") for name in ("load", "step")]
    assert [(error["cause"], error["message"]) for error in errors] == [
        ("host_oom", "process 2 of 2: MemoryError: no room for the images"),
        ("cuda_oom", "process 2 of 2: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."),
    ]
    assert read(tmp_path / "well" / "attempts" / "0001.json")["outcome"] == "done"


# The process that follows runs out of memory, and process 0 waits for it as for a GPU: for ever.
STUCK = """
import sys
if "trainer" in sys.orig_argv:
    import numpy
    well = numpy.load
    def load(*arguments, **named):
        import pathlib, time, torch
        from trainer.loop.trainer import Trainer
        waits = pathlib.Path(__file__).with_name("waits")
        def update(*arguments):
            if "--follow" in sys.orig_argv:
                while not waits.exists():
                    time.sleep(0.05)
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            from trainer.distributed import launch
            launch.LAST_WORDS_S = 0.5
            waits.touch()
            time.sleep(600)
        Trainer._update = update
        return well(*arguments, **named)
    numpy.load = load
"""


@pytest.mark.slow
def test_a_process_that_hangs_after_another_s_failure_records_that(data: Path, tmp_path: Path) -> None:
    """It is ended, and the run has failed of what the other one said, not been killed."""
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    path = os.pathsep.join([str(tmp_path), SUPPORT])
    trainer = Command("trainer", tmp_path, {"PYTHONPATH": path})
    try:
        trainer(*call(data, tmp_path / "run"), "--processes", 2, expect=-signal.SIGKILL)
    finally:
        trainer.end()
    record = read(tmp_path / "run" / "attempts" / "0001.json")
    assert (record["outcome"], record["cause"]) == ("failed", "cuda_oom")
    assert record["message"] == "process 2 of 2: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."


MEETINGS = 60
MEET_AND_PART = """
import os, sys
from datetime import timedelta
from torch._C._distributed_c10d import PrefixStore, TCPStore
from trainer.distributed.process_group import ProcessGroup
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
rank, port, meetings = (int(word) for word in sys.argv[1:])
if rank == 0:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    print(store.port, flush=True)
else:
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
for number in range(meetings):
    group = ProcessGroup(rank, 2)
    group.connect(PrefixStore(str(number), store))
    group.agree()
    assert group.broadcast_words() is None
    group.leave()
store.set(f"through-{rank}", "")
store.wait(["through-0", "through-1"])
"""


@pytest.mark.slow
def test_processes_part_as_soon_as_they_have_spoken() -> None:
    """On one core, where gloo's threads are always late: an exchange still being put away holds nobody for ever."""
    command = [sys.executable, "-c", MEET_AND_PART]
    first = subprocess.Popen([*command, "0", "0", str(MEETINGS)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    processes = [first, subprocess.Popen([*command, "1", first.stdout.readline().strip(), str(MEETINGS)])]
    try:
        assert [process.wait(2 * ENDED_S) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Command]:
    command = Command("torch.distributed.run", tmp_path, TRAINING)
    yield command
    command.end()


@pytest.mark.slow
def test_torchrun_starts_the_processes_too(torchrun: Command, data: Path, tmp_path: Path) -> None:
    """By hand: the run is done once, in two processes; the same call again finds it done."""
    start = ("--standalone", "--nproc-per-node", 2, "-m", "trainer", *call(data, tmp_path / "run", epochs=1))
    torchrun(*start)
    result = read(tmp_path / "run" / "result.json")
    assert result["hardware"]["stretches"][0]["device"].endswith(" in 2 processes")
    assert len(result["attempts"]) == 1
    assert torchrun(*start).stderr.count("run is done") == 1
    assert len(list((tmp_path / "run" / "attempts").iterdir())) == 1


@pytest.mark.slow
def test_a_number_of_processes_that_does_not_fit_is_refused(trainer: Command, data: Path, tmp_path: Path) -> None:
    """Before anything is written."""
    refused = trainer(*call(data, tmp_path / "run", "--processes", 3), expect=2)
    assert "--processes: 3 cannot share 4 replicas evenly; use 1 or 2 or 4" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_replicas_are_shared_evenly_or_not_at_all() -> None:
    """Else the mean of the processes' gradients would not be that of the replicas."""
    recipe = Recipe(replicas=6)
    assert [count for count in range(1, 8) if sharing_problem(recipe, count) is None] == [1, 2, 3, 6]
    assert sharing_problem(recipe, 4) == "4 cannot share 6 replicas evenly; use 1 or 2 or 3 or 6"


def test_only_what_torchrun_started_follows() -> None:
    """A WORLD_SIZE that is left in some job script's environment makes no process wait for others."""
    assert of_torchrun({"WORLD_SIZE": "4"}) == (0, 1)
    place = {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert of_torchrun(place) == (2, 4)
