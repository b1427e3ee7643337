"""Unpack, change and repack the datasets' archives, for tests that break them."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = {"cifar10": "cifar-10-python.tar.gz", "tinyimagenet": "tiny-imagenet-200.zip"}
Files = dict[str, Any]


def unpack(archive: Path) -> Files:
    """Return the contents of an archive's files by name, without the outer folder."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            return {name.partition("/")[2]: opened.read(name) for name in opened.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as packed:
        members = [member for member in packed if member.isfile()]
        return {member.name.partition("/")[2]: packed.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def pack(dataset: str, files: Files, path: Path) -> Path:
    """Write files as an archive of the dataset; a name that begins with "!" is stored without the outer folder."""
    inner = {"cifar10": "cifar-10-batches-py", "tinyimagenet": "tiny-imagenet-200"}[dataset]
    names = {name: name[1:] if name.startswith("!") else f"{inner}/{name}" for name in files}
    if dataset == "tinyimagenet":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                entry = zipfile.ZipInfo(names[name])
                entry.external_attr = (0o120777 if name.endswith("link") else 0o100644) << 16
                archive.writestr(entry, content)
        return path
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(names[name])
            if name.endswith("link"):
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = 0 if name.endswith("link") else len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def spread(files: Files, folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def left(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir()) if data.exists() else []


def batch(files: Files, name: str = "data_batch_3") -> dict[str, Any]:
    return {key.decode(): part for key, part in pickle.loads(files[name], encoding="bytes").items()}  # noqa: S301  ours


def jpeg(mode: str, size: tuple[int, int], kind: str = "JPEG") -> bytes:
    packed = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(packed, kind)
    return packed.getvalue()
