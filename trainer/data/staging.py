"""The temporary folder in which a dataset is prepared, and removing those of killed preparations."""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.records.process import Process, is_alive, this_process

# A preparation takes minutes. Another machine's processes cannot be looked up, so its folders expire by age.
_DEAD_AFTER_S = 24 * 3600


@contextlib.contextmanager
def work_folder(data: Path, dataset: str) -> Iterator[Path]:
    """Create a folder beside the target, named after its owner, and always remove it on exit."""
    owner = this_process()
    name = f".{dataset}.{owner.host}.{owner.pid}.{int(owner.started)}.{secrets.token_hex(4)}.preparing"
    work = data / name
    work.mkdir()
    try:
        yield work
    finally:
        # A failing removal must not hide the current error; the next preparation removes the folder.
        shutil.rmtree(work, ignore_errors=True)


def clear_dead(data: Path, dataset: str) -> None:
    """Remove the folders of killed preparations, keeping partial downloads for the next one."""
    for folder in data.glob(f".{dataset}.*.preparing"):
        owner = re.fullmatch(
            r"\.[a-z0-9]+\.(?P<host>.+)\.(?P<pid>\d+)\.(?P<started>\d+)\.[0-9a-f]{8}\.preparing", folder.name
        )
        with contextlib.suppress(FileNotFoundError):  # its owner or another process removed it first
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
