"""A disk that fails as it is told: Python loads this at its start where this folder is on its path.

DISK_FAULTS in the environment: JSON of {paths: ends of the names whose final write fails, error, first, last: which of
those writes, file: where each fault is noted}.
"""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = json.loads(os.environ["DISK_FAULTS"])
counts: dict[str, int] = {}


def _failing(call: Callable[..., None]) -> Callable[..., None]:
    def wrapped(source: Any, target: Any, **more: Any) -> None:
        name = next((end for end in FAULTS["paths"] if os.fspath(target).endswith(end)), None)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
            if FAULTS["first"] <= counts[name] <= FAULTS["last"]:
                with Path(FAULTS["file"]).open("a") as file:
                    file.write(f"{name}\n")
                number = getattr(errno, FAULTS["error"])
                raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))
        call(source, target, **more)

    return wrapped


os.replace, os.link = _failing(os.replace), _failing(os.link)
