"""Write a folder of output files and remove what an earlier call left there."""

import re
from collections.abc import Mapping
from pathlib import Path

from trainer.records.files import write_atomic


def write_folder(folder: Path, files: Mapping[str, bytes], ours: re.Pattern[str]) -> list[Path]:
    """Write files by name into a folder, created if needed, and return their paths in the same order.

    Other files whose whole name matches `ours` are left from an earlier call and removed; the user's own files stay.
    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / name for name in files]
    for path, content in zip(written, files.values(), strict=True):
        write_atomic(path, content)
    for path in set(folder.iterdir()).difference(written):
        if ours.fullmatch(path.name):
            path.unlink()
    return written
