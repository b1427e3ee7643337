"""The folder beside its target in which a dataset is prepared, and clearing what killed preparations left of theirs."""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.records.process import Process, is_alive, this_process

# A preparation takes minutes. What another machine left for longer than this, where no process can be asked, is dead.
_DEAD_AFTER_S = 24 * 3600


@contextlib.contextmanager
def work_folder(data: Path, dataset: str) -> Iterator[Path]:
    """Make a folder beside the target, named after its owner, and remove it whatever happens."""
    owner = this_process()
    name = f".{dataset}.{owner.host}.{owner.pid}.{int(owner.started)}.{secrets.token_hex(4)}.preparing"
    work = data / name
    work.mkdir()
    try:
        yield work
    finally:
        # A file that cannot be removed now must not hide the error at hand; the next preparation clears it.
        shutil.rmtree(work, ignore_errors=True)


def clear_dead(data: Path, dataset: str) -> None:
    """Remove what killed preparations left, keeping the part of a download for the next."""
    for folder in data.glob(f".{dataset}.*.preparing"):
        owner = re.fullmatch(
            r"\.[a-z0-9]+\.(?P<host>.+)\.(?P<pid>\d+)\.(?P<started>\d+)\.[0-9a-f]{8}\.preparing", folder.name
        )
        with contextlib.suppress(FileNotFoundError):  # its owner, or another cleaner, was faster
            status = folder.lstat()
            if owner is None or status.st_uid != os.getuid():
                continue
            process = Process(host=owner["host"], pid=int(owner["pid"]), started=float(owner["started"]))
            alive = is_alive(process)
            if alive is None:  # on another host
                alive = time.time() - status.st_mtime < _DEAD_AFTER_S
            if alive:
                continue
            for part in folder.glob("*.part"):
                part.replace(data / f".{dataset}.{part.name}")
            shutil.rmtree(folder)
