"""What several tests need: small prepared datasets, and the real command lines as processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from slurm.origin import cluster_name
from sweep.cli.look import status_entry
from sweep.config.load import load_sweep
from sweep.status.look import survey
from trainer.data.prepare import prepare
from trainer.data.synthesize import synthesize

collect_ignore = ["on_gpu"]  # unless asked for by name: without a GPU these tests fail
pytest_plugins = ("cluster_fixtures", "slurm_fixtures", "torture_fixtures")

REPOSITORY = Path(__file__).parent.parent
SUPPORT = str(REPOSITORY / "tests" / "support")
PLACES = [str(REPOSITORY / "tests"), SUPPORT]  # of what tests import from each other
# What is measured of networks stays beside what pytest keeps, not in the home of who runs the tests.
os.environ["XDG_CACHE_HOME"] = str(REPOSITORY / ".pytest_cache" / "home")
# With it every process would compile our packages anew, for half a second of a trainer's start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
TRAINING = {**ONE_THREAD, "PYTHONPATH": SUPPORT}  # where a trainer finds `networks`
LONG_S = 120.0


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a small drawn CIFAR-10 (80 + 40 images) and TinyImageNet (5 classes, 60 + 20 images)."""
    folder = tmp_path_factory.mktemp("data")
    for dataset, train, val, classes in (("cifar10", 80, 40, None), ("tinyimagenet", 60, 20, 5)):
        archive = synthesize(dataset, folder / "archives", train=train, val=val, classes=classes)
        prepare(dataset, str(archive), folder, unofficial=True)
    return folder


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small drawn archives of both datasets; not to be changed."""
    folder = tmp_path_factory.mktemp("archives")
    return {
        "cifar10": synthesize("cifar10", folder, train=60, val=20),
        "tinyimagenet": synthesize("tinyimagenet", folder, train=12, val=6, classes=3),
    }


class Command:
    """A command of the project, run as a process of its own in a folder of its own.

    before: a command that starts it, such as one that changes the user.
    """

    def __init__(
        self, module: str, folder: Path, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> None:
        self.module = module
        self.folder = folder
        self.before = before
        self.environment = {**(TRAINING if module == "trainer" else ONE_THREAD), **(environment or {})}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start the command and go on; it is ended with the test."""
        process = subprocess.Popen(
            [*self.before, sys.executable, "-m", self.module, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command to its end and hold it to its exit code."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=LONG_S)
        assert process.returncode == expect, f"exit {process.returncode}, not {expect}\n{stdout}\n{stderr}"
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def json(self, *arguments: object, expect: int = 0) -> Any:
        """Run a command with --json and give its document."""
        return json.loads(self(*arguments, "--json", expect=expect).stdout)

    def runs(self, file: Path) -> list[dict[str, Any]]:
        """What `sweep status FILE --json` says of the runs, without starting a Python for each look."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            cluster_name.cache_clear()
            runs = [status_entry(found) for found in survey(load_sweep(file))]
        return list(json.loads(json.dumps(runs, default=str)))

    def end(self) -> None:
        """End what is left."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Command]:
    """`python -m trainer`."""
    command = Command("trainer", tmp_path)
    yield command
    command.end()


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Command]:
    """`python -m sweep`."""
    command = Command("sweep", tmp_path)
    yield command
    command.end()


def program(name: str, package: str) -> str:
    """Return the path of a program that a test runs; without it the test is skipped, in CI it fails."""
    path = shutil.which(name)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {name} on PATH: apt-get install {package}")
    return path


def wait_for(condition: Callable[[], bool], what: str, seconds: float = LONG_S) -> None:
    """Wait until a condition holds; fail naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


def read(path: Path) -> Any:
    """Read a JSON file, None while it is not there."""
    return json.loads(path.read_text()) if path.exists() else None


def metrics(result: Path) -> dict[str, list[float]]:
    """Return a result's history without the times."""
    history = read(result)["history"]
    del history["epoch_seconds"]
    return history
