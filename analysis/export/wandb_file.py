"""The file of one offline wandb run, looked into: whether wandb has written it to its end.

`run.finish()` returns before the last records are in the file (seen with 0.31: 7 bytes of a finished run), so a copy
made then can be cut short, and nobody would notice before the upload.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from analysis.errors import AnalysisError

# LevelDB's log format behind a header: blocks of 32 KiB, in them parts of records, each with checksum, length and kind.
_HEADER, _BLOCK, _PART = 7, 32_768, struct.Struct("<IHB")
_WHOLE, _LAST = 1, 4
WAIT_S = 60.0


def read_when_whole(path: Path, epochs: int) -> bytes:
    """Give the file's bytes once the run's end and every epoch are in it. Raises AnalysisError if that never comes."""
    deadline = time.monotonic() + WAIT_S
    while not _is_whole(content := path.read_bytes(), epochs):
        if time.monotonic() > deadline:
            raise AnalysisError(f"export to wandb-offline: wandb left {path.name} unfinished; export again")
        time.sleep(0.05)
    return content


def _is_whole(content: bytes, epochs: int) -> bool:
    from wandb.proto.wandb_internal_pb2 import Record

    kinds = [Record.FromString(record).WhichOneof("record_type") for record in _records(content)]
    return "exit" in kinds and kinds.count("history") == epochs


def _records(content: bytes) -> Iterator[bytes]:
    at, parts = _HEADER, b""
    while at + _PART.size <= len(content):
        room = _BLOCK - at % _BLOCK
        if room < _PART.size:
            at += room
            continue
        _, length, kind = _PART.unpack_from(content, at)
        part = content[at + _PART.size : at + _PART.size + length]
        if len(part) < length:
            return
        parts += part
        at += _PART.size + length
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""
