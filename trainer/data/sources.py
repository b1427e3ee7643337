"""An archive or an unpacked folder as a set of named files.

Owns what may be read: names inside the archive, no links, bounded sizes, nothing extracted to disk. Knows nothing of
the files' content.
"""

import gzip
import os
import re
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from trainer.data.prepared import DataError

# The official CIFAR-10 batches are 31 MB each and 186 MB together; no member of either dataset is larger than this.
LARGEST_MEMBER = 64 * 2**20
LARGEST_TAR = 1024 * 2**20

_BLOCK = 2**20

Entry = TypeVar("Entry")


class Source(ABC):
    """Named files below one root; names are relative to it and separated by "/"."""

    def __init__(self, label: str, remedy: str) -> None:
        self.label = label
        self._remedy = remedy
        self._root = ""

    def enter(self, inner: str, marker: str) -> None:
        """Set the root to the folder that holds the file marker: the top or inner. Raises DataError if neither does."""
        self._root = ""
        for folder in ("", inner):
            if marker in self.files(folder):
                self._root = folder
                return
        raise DataError(f"{self.label}: holds neither {marker} nor {inner}/{marker}; {self._remedy}")

    def where(self, name: str) -> str:
        return f"{self.label}: {self._below(name)}"

    def error(self, name: str, problem: str) -> DataError:
        """Create the error for a file: where it is, the problem, what to do."""
        return DataError(f"{self.where(name)}: {problem}; {self._remedy}")

    def read(self, name: str, limit: int = LARGEST_MEMBER) -> bytes:
        """Read a whole file; thread-safe. Raises DataError if it is missing, damaged or larger than limit bytes."""
        size = self._size(self._below(name))
        if size is None:
            raise self.error(name, "is missing")
        if size > limit:
            raise self.error(name, f"is {size} bytes, more than the {limit} that such a file may have")
        return self._read(name, self._below(name))

    @abstractmethod
    def files(self, folder: str) -> list[str]:
        """List the names of the files directly in a folder, sorted; empty if there is no such folder."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """List the names of the folders directly in a folder, sorted."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _size(self, path: str) -> int | None: ...

    @abstractmethod
    def _read(self, name: str, path: str) -> bytes: ...

    def _below(self, name: str) -> str:
        return "/".join(part for part in (self._root, name) if part)


class Folder(Source):
    """An unpacked dataset. Follows links, as such folders on clusters often consist of them."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), "unpack the official archive again, or name the archive itself")
        self._path = path

    def where(self, name: str) -> str:
        return str(self._path / self._below(name))

    def files(self, folder: str) -> list[str]:
        return self._list(folder, files=True)

    def folders(self, folder: str) -> list[str]:
        return self._list(folder, files=False)

    def close(self) -> None:
        return None

    def _list(self, folder: str, files: bool) -> list[str]:
        try:
            with os.scandir(self._path / self._below(folder)) as entries:
                return sorted(entry.name for entry in entries if (entry.is_file() if files else entry.is_dir()))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _size(self, path: str) -> int | None:
        try:
            status = (self._path / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def _read(self, name: str, path: str) -> bytes:
        return (self._path / path).read_bytes()


class _Archive(Source, Generic[Entry]):
    """What zip and tar share: an index of checked names, built before any member is used."""

    def __init__(self, path: Path, label: str) -> None:
        super().__init__(label, "get the archive again, for example with '--source download'")
        self._path = path
        self._entries: dict[str, tuple[int, Entry]] = {}
        self._files: dict[str, list[str]] = {}
        self._folders: dict[str, set[str]] = {}

    def files(self, folder: str) -> list[str]:
        return sorted(self._files.get(self._below(folder), []))

    def folders(self, folder: str) -> list[str]:
        return sorted(self._folders.get(self._below(folder), ()))

    def _checked(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:", name):
            raise self.error(ascii(name), "is not a path inside the archive's own folder, so nothing was read")
        return "/".join(parts)

    def close(self) -> None:
        self._entries.clear()

    def _size(self, path: str) -> int | None:
        return self._entries[path][0] if path in self._entries else None

    def _add(self, path: str, size: int, entry: Entry) -> None:
        if path in self._entries:
            raise self.error(path, "is in the archive twice")
        self._entries[path] = (size, entry)
        folder, _, plain = path.rpartition("/")
        self._files.setdefault(folder, []).append(plain)
        while folder:
            folder, _, plain = folder.rpartition("/")
            siblings = self._folders.setdefault(folder, set())
            if plain in siblings:
                break
            siblings.add(plain)


class Zip(_Archive[zipfile.ZipInfo]):
    """A zip archive, read member by member."""

    def __init__(self, path: Path, label: str) -> None:
        super().__init__(path, label)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise DataError(f"{label}: is not a whole zip archive ({error}); {self._remedy}") from error
        try:
            for entry in self._zip.infolist():
                # orig_filename still has what zipfile cuts off after a null byte.
                name = self._checked(entry.orig_filename)
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise self.error(name, "is a link, which no official archive holds")
                if not entry.is_dir():
                    self._add(name, entry.file_size, entry)
        except DataError:
            self._zip.close()
            raise

    def close(self) -> None:
        self._zip.close()

    def _read(self, name: str, path: str) -> bytes:
        try:
            return self._zip.read(self._entries[path][1])
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            # RuntimeError: encrypted, or a compression method that zipfile does not know.
            raise self.error(name, f"cannot be unpacked ({error})") from error


class Tar(_Archive[bytes]):
    """A tar archive, plain or gzipped, read sequentially into memory.

    Seeking back in a compressed tar decompresses it again, and CIFAR-10's batches are not stored in order.
    """

    def __init__(self, path: Path, label: str) -> None:
        super().__init__(path, label)
        self._held = 0
        try:
            with path.open("rb") as raw:
                zipped = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                # gzip compares its checksum only at its own end, which is after the tar's.
                with gzip.open(raw) if zipped else raw as plain:
                    with tarfile.open(fileobj=plain, mode="r:") as archive:
                        for member in archive:
                            self._take(archive, member)
                    while plain.read(_BLOCK):
                        pass
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
            raise DataError(f"{label}: is not a whole tar archive ({error}); {self._remedy}") from error

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._checked(member.name)
        if member.isdir():
            return
        if not member.isreg():
            raise self.error(name, "is a link or a device, which no official archive holds")
        self._held += member.size
        if member.size > LARGEST_MEMBER or self._held > LARGEST_TAR:
            raise self.error(name, f"makes the archive larger than any official one, {self._held} bytes up to here")
        file = archive.extractfile(member)
        self._add(name, member.size, b"" if file is None else file.read())

    def _read(self, name: str, path: str) -> bytes:
        return self._entries[path][1]


def open_source(path: Path, label: str) -> Source:
    """Open an archive (recognised by its content) or a folder for reading.

    label: its name in errors. Raises DataError if it is neither or damaged, OSError if it cannot be read.
    """
    if path.is_dir():
        return Folder(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    return Zip(path, label) if zipped else Tar(path, label)
