"""Prepare a dataset from an archive, a folder or a URL, completely or not at all.

Owns the checksums, writing the arrays and the final rename. `cifar10` and `tinyimagenet` read the archives, through
`sources`.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.data import cifar10, tinyimagenet
from trainer.data.catalog import DATASETS, Dataset
from trainer.data.download import download
from trainer.data.prepared import (
    MANIFEST,
    SYNTHETIC_MARKER,
    Contents,
    DataError,
    Fingerprint,
    Manifest,
    PreparedDataset,
    Report,
    paced,
    read_manifest,
)
from trainer.data.sources import Source, open_source
from trainer.data.staging import clear_dead, work_folder
from trainer.records.files import sync_folder, write_json

_READERS: dict[str, ModuleType] = {"cifar10": cifar10, "tinyimagenet": tinyimagenet}
_BLOCK = 2**20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Origin(NamedTuple):
    """Whether a source is official, and the archive's md5, None for a folder."""

    official: bool
    md5: str | None


def prepare(
    dataset: str,
    source: str,
    data: Path,
    *,
    unofficial: bool = False,
    report: Report = lambda stage, done, total: None,
) -> tuple[Manifest, bool]:
    """Fill data/<dataset>/ from source: a path to the archive or its unpacked folder, "download", or an http(s) URL.

    Returns the manifest, and whether this call prepared it: False if the same content was there. unofficial: accept a
    source without the official md5. report: see Report; stages are downloading, checking, reading. Raises DataError.
    After that or KeyboardInterrupt nothing is left but a partial download, which the next call resumes.
    """
    facts = DATASETS.get(dataset)
    if facts is None:
        raise DataError(f"{dataset}: no such dataset; there are {', '.join(DATASETS)}")
    url = facts.url if source == "download" else source if source.startswith(("http://", "https://")) else None
    report = paced(report)
    label = url or source
    try:
        data.mkdir(parents=True, exist_ok=True)
        present = _present(data, dataset)
        if url and present and present.official and not unofficial:
            return present, False
        clear_dead(data, dataset)
        with work_folder(data, dataset) as work:
            path = _fetch(facts, url, data, work, unofficial, report) if url else Path(source).expanduser()
            if not path.exists():
                wanted = f"the path of {facts.archive}, that of its unpacked folder, or 'download'"
                raise DataError(f"{source}: no such file or folder; give {wanted} as --source")
            origin = _origin(facts, path, label, unofficial, report)
            if present and (present.official if origin.official else origin.md5 and origin.md5 == present.source_md5):
                return present, False
            with contextlib.closing(open_source(path, label)) as files:
                manifest = _write(facts, files, origin, label, work / dataset, report)
            return _put_in_place(data, dataset, manifest, work / dataset)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise DataError(
                f"{data}: no space to prepare {dataset} ({reason}); free some, or choose another folder with --data, "
                "and run the same command again"
            ) from error
        raise DataError(f"{error.filename or data}: {reason}; check the path and its permissions") from error


def require_space(folder: Path, needed: int) -> None:
    """Raise DataError if folder's disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder}: {free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB needed; free some, or choose another folder "
            "with --data"
        )


def _present(data: Path, dataset: str) -> Manifest | None:
    """Read the manifest of the dataset in place, if any. Raises DataError if what is there is damaged or foreign."""
    target = data / dataset
    manifest = read_manifest(data, dataset)
    if manifest:
        PreparedDataset(target, manifest).arrays()
    elif target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise DataError(f"{target}: is not a prepared dataset; move it away, or choose another folder with --data")
    return manifest


def _origin(facts: Dataset, path: Path, label: str, unofficial: bool, report: Report) -> _Origin:
    """Compare md5s with the official ones. Raises DataError if they differ, unless unofficial."""
    advice = "get the official one with '--source download', or pass --unofficial to use this one as it is"
    if not path.is_dir():
        found = _md5(path, report)
        if found != facts.md5 and not unofficial:
            raise DataError(f"{label}: not the official archive: its md5 is {found}, not {facts.md5}; {advice}")
        return _Origin(found == facts.md5, found)
    reader = _READERS[facts.name]
    if not reader.OFFICIAL_MD5:
        if not unofficial:
            raise DataError(
                f"{label}: an unpacked {facts.title} has no official checksum to compare; give {facts.archive} itself "
                f"(md5 {facts.md5}), or pass --unofficial to use this one as it is"
            )
        return _Origin(False, None)
    with contextlib.closing(open_source(path, label)) as files:
        files.enter(reader.INNER, reader.MARKER)
        for name, expected in reader.OFFICIAL_MD5.items():
            found = hashlib.md5(files.read(name), usedforsecurity=False).hexdigest()
            if found != expected:
                if not unofficial:
                    problem = f"not the official file: its md5 is {found}, not {expected}"
                    raise DataError(f"{files.where(name)}: {problem}; {advice}")
                return _Origin(False, None)
    return _Origin(True, None)


def _md5(path: Path, report: Report) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    total = path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            report("checking", file.tell(), total)
    return digest.hexdigest()


def _fetch(facts: Dataset, url: str, data: Path, work: Path, unofficial: bool, report: Report) -> Path:
    """Download into work, resuming a part that an earlier call left in data; a failing call leaves its own part there.

    The part is taken by a rename, so of two calls one resumes it and the other starts over.
    """
    path = work / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"
    parked = data / f".{facts.name}.{path.name}"
    with contextlib.suppress(FileNotFoundError):  # there is none, or another call took it
        parked.rename(path)
    if unofficial:
        # Without a checksum, a resumed download could mix two versions of the file.
        path.unlink(missing_ok=True)
    resumed = path.exists()
    try:
        download(url, path, report)
    except (DataError, KeyboardInterrupt):
        if path.exists() and not unofficial:
            path.replace(parked)
        raise
    if resumed and _md5(path, report) != facts.md5:
        path.unlink()
        download(url, path, report)
    return path


def _write(facts: Dataset, files: Source, origin: _Origin, label: str, folder: Path, report: Report) -> Manifest:
    """Read the source and write a new folder: the arrays, then the manifest."""
    contents: Contents = _READERS[facts.name].read(files)
    unsigned = Manifest(
        dataset=facts.name,
        fingerprint="",
        official=origin.official,
        synthetic=SYNTHETIC_MARKER in files.files(""),
        source=label,
        source_md5=origin.md5,
        classes=contents.classes,
        image_size=contents.image_size,
        train_samples=len(contents.train.labels),
        val_samples=len(contents.val.labels),
        prepared=datetime.now(timezone.utc).replace(microsecond=0),
    )
    total = unsigned.train_samples + unsigned.val_samples
    require_space(folder.parent.parent, total * (3 * contents.image_size**2 + 8) + _BLOCK)
    folder.mkdir()
    fingerprint = Fingerprint(contents.classes)
    read = 0
    for name, (shape, dtype) in unsigned.layout().items():
        split = contents.train if name.startswith("train") else contents.val
        images = name.endswith("images")
        fingerprint.begin(name, dtype, shape)
        with _array_file(folder / f"{name}.npy", dtype, shape) as put:
            for rows in split.images if images else [split.labels.astype(dtype)]:
                fingerprint.update(rows)
                put(rows)
                if images:
                    read += len(rows)
                    report("reading", read, total)
    manifest = unsigned.model_copy(update={"fingerprint": fingerprint.hexdigest()})
    write_json(folder / MANIFEST, manifest)
    return manifest


@contextlib.contextmanager
def _array_file(path: Path, dtype: str, shape: tuple[int, ...]) -> Iterator[Callable[[npt.NDArray[Any]], object]]:
    """Write an .npy file durably, some rows at a time.

    Not through a memory map: on a full disk that ends in SIGBUS, a write in an error that can be reported.
    """
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        yield lambda rows: file.write(np.ascontiguousarray(rows).data)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(data: Path, dataset: str, manifest: Manifest, folder: Path) -> tuple[Manifest, bool]:
    """Rename folder into place; if a dataset is there already, it must have the same fingerprint."""
    sync_folder(folder)
    try:
        folder.rename(data / dataset)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        sync_folder(data)
        return manifest, True
    present = _present(data, dataset)
    if present is None or present.fingerprint != manifest.fingerprint:
        held = f"from {present.source}, fingerprint {present.fingerprint[:12]}" if present else "something else"
        raise DataError(
            f"{data / dataset}: already holds another {dataset} ({held}; this one's is {manifest.fingerprint[:12]}); "
            f"remove {data / dataset}, or choose another folder with --data"
        )
    return present, False
