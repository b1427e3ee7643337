"""`python -m trainer` as its users and the cluster meet it: started, stopped, killed, started again."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LONG_S, REPOSITORY, Command, metrics, read, wait_for
from networks import REFERENCE
from training_fixtures import call

from trainer.checkpoint import tensors as checkpoint
from trainer.records.attempt import AttemptRecord
from trainer.records.checkpoint_file import checkpoint_name
from trainer.records.files import from_json, read_json, write_json
from trainer.records.result import Result
from trainer.records.run import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, int], Path]]:
    """The folder of a done run, by network and epochs, trained once for the module; not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    trainer = Command("trainer", place)

    def run(architecture: str, epochs: int) -> Path:
        folder = place / f"{architecture} {epochs}" / "a run"
        if not folder.exists():
            trainer(*call(data, folder, "--threads", 1, architecture=architecture, epochs=epochs))
        return folder

    yield run
    trainer.end()


@pytest.fixture
def done(trained: Callable[[str, int], Path], tmp_path: Path) -> Path:
    """The folder of a run that is done after one epoch."""
    return Path(shutil.copytree(trained(REFERENCE, 1), tmp_path / "a run"))


def test_a_run_leaves_the_records_of_the_contract(trained: Callable[[str, int], Path]) -> None:
    """result.json validates, progress.json shows the last epoch, the attempt is closed, no checkpoint is left."""
    folder = trained("resnet18", 6)
    result = from_json((folder / "result.json").read_bytes(), Result)
    assert result.run.id == "a run"
    assert result.history.epochs == 6
    assert (result.data.train_samples, result.data.val_samples, result.data.classes) == (40, 40, 10)
    assert result.parameters == 11_181_642
    assert result.history.learning_rate == pytest.approx([3e-4] * 3 + [3e-5] * 3)
    assert [(attempt.number, attempt.outcome, attempt.end_epoch) for attempt in result.attempts] == [(1, "done", 6)]
    assert 0 < result.timing.train_seconds + result.timing.evaluation_seconds <= result.timing.total_seconds
    assert read(folder / "progress.json")["epoch"] == 6
    assert read(folder / "attempts" / "0001.json")["outcome"] == "done"
    assert "epoch 6/6" in (folder / "logs" / "attempt-0001.log").read_text()
    assert not list(folder.glob("checkpoints/*"))
    assert "NaN" not in (folder / "result.json").read_text()


def test_a_second_call_on_a_done_run_says_so_and_changes_nothing(trainer: Command, data: Path, done: Path) -> None:
    """The same call again exits 0 at once; the files stay as they are."""
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    again = trainer(*call(data, done, epochs=1))
    assert "is done" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before


@pytest.mark.parametrize("closed", [False, True])
def test_what_a_kill_after_the_result_left_is_tidied_up(trainer: Command, data: Path, done: Path, closed: bool) -> None:
    """The next call closes the attempt, unless the job's parent has, and removes checkpoints and half-written files."""
    folder = RunFolder(done)
    before = read_json(folder.attempt(1), AttemptRecord)
    assert before is not None
    gone = before.process.model_copy(update={"started": 1.0})
    ending = {"outcome": "interrupted"} if closed else {"outcome": None, "ended": None}
    write_json(folder.attempt(1), before.model_copy(update={"process": gone, **ending}))
    left = [folder.checkpoints / "epoch-000001.safetensors", folder.path / ".reserve.0.tmp", folder.attempts / ".x.tmp"]
    folder.checkpoints.mkdir(exist_ok=True)
    for path in left:
        path.write_bytes(b"left")
    assert "is done" in trainer(*call(data, folder.path, epochs=1)).stderr
    assert not any(path.exists() for path in left)
    after = read_json(folder.attempt(1), AttemptRecord)
    assert after is not None
    assert after.outcome == ("interrupted" if closed else "done")
    assert after.ended is not None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--epochs", 3), "holds a run with epochs"),
        (("--seed", 43), "holds a run with seed 42, this call has 43"),
        (("--replicas", 2), "holds a run with replicas 4, this call has 2"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_run_is_refused_with_the_field_that_differs(
    trainer: Command, data: Path, done: Path, change: tuple[object, ...], sentence: str, finished: bool
) -> None:
    """Exit 2, one sentence, and what the folder holds stays; also when the other run has only begun."""
    if not finished:
        (done / "result.json").unlink()
    refused = trainer(*call(data, done, *change, epochs=1), expect=2)
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (done / "result.json").exists() == finished


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_interrupts_in_good_order(
    trainer: Command, data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The run exits 75, is recorded as interrupted with the signal, and goes on when called again."""
    folder = tmp_path / "run"
    process = trainer.start(*call(data, folder, "--checkpoint-interval", 0, epochs=500))
    wait_for(lambda: (read(folder / "progress.json") or {"epoch": 0})["epoch"] >= 2, "the second epoch")
    process.send_signal(number)
    assert process.wait(30) == 75
    attempt = read(folder / "attempts" / "0001.json")
    assert (attempt["outcome"], attempt["cause"]) == ("interrupted", "killed")
    assert number.name in attempt["message"]
    assert attempt["end_epoch"] >= 2
    assert not (folder / "error.json").exists()
    assert list((folder / "checkpoints").glob("*.safetensors"))


@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_a_run_killed_mid_epoch_resumes_to_the_same_result(
    trainer: Command, trained: Callable[[str, int], Path], data: Path, tmp_path: Path, architecture: str
) -> None:
    """SIGKILL twice, then the end: the history equals an uninterrupted run's bit for bit, and says what happened.

    Also when it goes on with another number of threads: sums of floats depend on it, so the first number is kept.
    """
    whole, killed = trained(architecture, 6), tmp_path / "killed" / "run"
    for epoch, threads in ((2, 1), (4, 2)):
        more = ("--checkpoint-interval", 0, "--threads", threads)
        process = trainer.start(*call(data, killed, *more, architecture=architecture))
        saved = [killed / "checkpoints" / checkpoint_name(number) for number in range(epoch, 100)]
        wait_for(lambda: any(path.exists() for path in saved), f"a checkpoint of epoch {epoch}")  # noqa: B023
        process.kill()
        process.wait()
    trainer(*call(data, killed, "--threads", 2, architecture=architecture))
    assert metrics(killed / "result.json") == metrics(whole / "result.json")
    attempts = read(killed / "result.json")["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted", "interrupted", "done"]
    assert attempts[1]["start_epoch"] >= 1
    assert attempts[2]["start_epoch"] >= attempts[1]["start_epoch"]


def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(
    trainer: Command, trained: Callable[[str, int], Path], data: Path, tmp_path: Path
) -> None:
    """The run goes on from the older one to the same result, and says in progress and log what it passed over."""
    whole, harmed = trained(REFERENCE, 6), tmp_path / "harmed" / "run"
    process = trainer.start(*call(data, harmed, "--checkpoint-interval", 0))
    wait_for(lambda: len(list(harmed.glob("checkpoints/*.safetensors"))) == 2, "two checkpoints")
    process.kill()
    process.wait()
    _older, newer = sorted(harmed.glob("checkpoints/*.safetensors"))
    newer.write_bytes(newer.read_bytes()[:-1000])
    half_written = [harmed / ".progress.json.0.tmp", harmed / "checkpoints" / f".{newer.name}.0.tmp"]
    for path in half_written:
        path.write_bytes(b"half")
    trainer(*call(data, harmed))
    assert metrics(harmed / "result.json") == metrics(whole / "result.json")
    assert newer.name in read(harmed / "progress.json")["notes"][0]
    assert not any(path.exists() for path in half_written)
    assert "passed over" in (harmed / "logs" / "attempt-0002.log").read_text()


def test_a_result_says_that_it_crossed_to_something_that_may_round_otherwise(
    trainer: Command, data: Path, tmp_path: Path
) -> None:
    """Begun on two threads, gone on with where there is one core: progress notes it, the result has both stretches."""
    folder = tmp_path / "run"
    core = min(os.sched_getaffinity(0))
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    process = trainer.start(*call(data, folder, "--checkpoint-interval", 0, "--threads", 2))
    wait_for(lambda: bool(list(folder.glob("checkpoints/*.safetensors"))), "a checkpoint")
    process.kill()
    process.wait()
    process = trainer.start(*call(data, folder))
    os.sched_setaffinity(process.pid, {core})
    assert process.wait(LONG_S) == 0
    first, second = from_json((folder / "result.json").read_bytes(), Result).hardware.stretches
    assert (first.epoch, first.threads, second.threads) == (0, 2, 1)
    assert second.epoch == read(folder / "attempts" / "0002.json")["start_epoch"]
    assert f"goes on on {second}, after {first}: the last bits may differ" in read(folder / "progress.json")["notes"]


@pytest.mark.parametrize(("interval", "count"), [((), "0"), (("--checkpoint-interval", 0), "2")])
def test_short_epochs_are_saved_by_the_clock_not_one_by_one(
    trainer: Command, data: Path, tmp_path: Path, interval: tuple[object, ...], count: str
) -> None:
    """A run of seconds writes no checkpoint at the usual interval, and one after each epoch but the last at none."""
    said = trainer(*call(data, tmp_path / "run", *interval, epochs=3)).stderr
    assert re.findall(r"(\d+) checkpoints: held training up", said) == [count]


def test_the_final_checkpoint_stays_where_it_is_wanted(trainer: Command, data: Path, tmp_path: Path) -> None:
    """--keep-checkpoints final leaves the state after the last epoch, and no other, beside the result."""
    folder = tmp_path / "run"
    how = ("--keep-checkpoints", "final", "--checkpoint-interval", 0)
    trainer(*call(data, folder, *how, architecture="resnet18", epochs=3))
    [kept] = (folder / "checkpoints").iterdir()
    found = checkpoint.load(kept)
    assert found.info.history == from_json((folder / "result.json").read_bytes(), Result).history
    text = (REPOSITORY / "docs" / "nothing-lost.md").read_text()  # which says how to use it
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    session: dict[str, Any] = {}
    exec(re.sub(r'load_file\(".*"\)', f'load_file("{kept}")', block), session)  # noqa: S102  the page's own code
    assert torch.equal(session["network"].state_dict()["fc.weight"], found.tensors["model.fc.weight"])


def test_a_diverging_run_fails_with_its_cause(trainer: Command, data: Path, tmp_path: Path) -> None:
    """A loss that is not finite ends the run: exit 1, error.json with cause, traceback and log."""
    folder = tmp_path / "run"
    trainer(*call(data, folder, "--learning-rate", "1e30"), expect=1)
    error = read(folder / "error.json")
    assert error["cause"] == "diverged"
    assert "loss is" in error["message"]
    assert "Traceback" in error["traceback"]
    assert Path(error["log"]).exists()
    assert not (folder / "result.json").exists()
    assert read(folder / "attempts" / "0001.json")["outcome"] == "failed"


def test_an_exception_is_recorded_where_it_can_be_found(trainer: Command, data: Path, tmp_path: Path) -> None:
    """A dataset that cannot be read any more fails the run with the file's name, not with silence and exit 0."""
    broken = tmp_path / "data" / "cifar10"
    broken.mkdir(parents=True)
    for path in (data / "cifar10").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "val_images.npy").write_bytes(b"not an array")
    trainer(*call(tmp_path / "data", tmp_path / "run"), expect=1)
    error = read(tmp_path / "run" / "error.json")
    assert error["cause"] == "exception"
    assert "val_images.npy" in error["message"]


def test_two_trainers_started_together_train_once(trainer: Command, data: Path, tmp_path: Path) -> None:
    """One of them owns the run; the other stands back with exit 69 and leaves no attempt of its own."""
    folder = tmp_path / "run"
    first, second = (trainer.start(*call(data, folder, epochs=4)) for _ in range(2))
    codes = sorted((first.wait(60), second.wait(60)))
    assert codes in ([0, 69], [0, 0])  # 0 and 0 when one came to look after the other had finished
    result = from_json((folder / "result.json").read_bytes(), Result)
    assert len(result.attempts) == 1
    assert len(list((folder / "attempts").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--architecture", "resnet19"], "--architecture resnet19: none of resnet18, vit, and no reference"),
        (["--ratio", "2"], "--ratio 2.0: must be above 0 and at most 1"),
        (["--seed", "-1"], "--seed -1: must not be negative"),
        (["--epochs", "0"], "--epochs 0: Input should be greater than or equal to 1"),
        (["--ratio", "0.05"], "fewer than the 10 classes"),
        (["--replicas", "40", "--ratio", "0.5"], "batch statistics need 2"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--device", "cuda:7"], "sees 0 GPUs here, not 'cuda:7'"),
        (["--device", "meta"], "device 'meta' is not supported"),
        (["--data", "nowhere"], "is not prepared; run 'sweep data prepare cifar10"),
    ],
)
def test_a_wrong_call_exits_2_with_one_sentence_and_writes_nothing(
    trainer: Command, data: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    """What cannot be done is said before anything is written."""
    refused = trainer(*call(data, tmp_path / "run"), *arguments, expect=2)
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()
