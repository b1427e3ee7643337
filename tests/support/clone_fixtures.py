"""A user's own clone of the program: copied packages under git, to be edited while jobs of it wait."""

import os
import shutil
import subprocess
from pathlib import Path

from conftest import REPOSITORY

PACKAGES = ("sweep", "slurm", "trainer", "analysis")
# What git takes from the environment is not what these tests are about.
IDENTITY = {"HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
BREAKS = "raise SystemExit('broken by an edit')\n"


class Clone:
    """The clone in a folder. environment: what makes `python -m sweep` run its code; head: its first commit."""

    def __init__(self, path: Path, packages: tuple[str, ...] = PACKAGES) -> None:
        self.path = path
        self.environment = {"PYTHONPATH": str(path)}
        for package in packages:
            shutil.copytree(REPOSITORY / package, path / package, ignore=shutil.ignore_patterns("__pycache__"))
        self._git("init", "--quiet")
        self.head = self.commit()

    def commit(self) -> str:
        """Commit all that there is; the commit's name."""
        self._git("add", "--all")
        self._git("-c", "user.name=u", "-c", "user.email=u@h", "commit", "--quiet", "--message", "c")
        return self._git("rev-parse", "HEAD").strip()

    def edit(self, name: str, more: str) -> None:
        """Add lines to the end of a file."""
        with (self.path / name).open("a") as file:
            file.write(more)

    def _git(self, *arguments: str) -> str:
        call = ["git", "-C", str(self.path), *arguments]
        environment = {**os.environ, **IDENTITY}
        return subprocess.run(call, check=True, capture_output=True, text=True, timeout=30, env=environment).stdout
