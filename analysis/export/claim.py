"""Which files in a folder are an export's, so that the next one replaces these and touches no others.

The list lies in the folder itself, written before the first file and again after the last: also after a kill between
the two, every file an export made is known as one.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from analysis.errors import AnalysisError
from trainer.records.base import Versioned
from trainer.records.files import UNFINISHED, RecordError, read_json, write_json


class Manifest(Versioned):
    """The files of one export, relative to its folder."""

    sweep: str
    target: str
    files: list[str]

    @field_validator("files")
    @classmethod
    def _stay_in_the_folder(cls, files: list[str]) -> list[str]:
        # They are deleted when a later export has them no more: a list that someone edited must not reach further.
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ValueError(f"{name!r} is not a file of the folder")
        return files


@dataclass(frozen=True)
class Claim:
    """A folder that an export may write these files into. before: those that earlier exports left there."""

    folder: Path
    manifest: Manifest
    before: frozenset[str]

    @classmethod
    def of(cls, folder: Path, sweep: str, target: str, names: Sequence[str]) -> "Claim":
        """Claim these files, making the folder. Raises AnalysisError if others are in the way."""
        if folder.exists() and not folder.is_dir():
            raise AnalysisError(f"{folder} is a file; name a folder to export to")
        path = _manifest_path(folder, target)
        try:
            earlier = read_json(path, Manifest)
        except RecordError as error:
            raise AnalysisError(f"{error}; name another folder to export to") from error
        if earlier is not None and earlier.sweep != sweep:
            raise AnalysisError(f"{folder} holds the export of the sweep '{earlier.sweep}'; name another folder")
        before = frozenset(earlier.files if earlier else ())
        foreign = [name for name in names if name not in before and (folder / name).exists()]
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise AnalysisError(
                f"{folder / foreign[0]}{more}: there already, and not from an export to {target}; name another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        claim = cls(folder, Manifest(sweep=sweep, target=target, files=sorted(names)), before)
        write_json(path, claim.manifest.model_copy(update={"files": sorted(before.union(names))}))
        return claim

    def settle(self) -> None:
        """Remove what an earlier export left and this one has no more, killed writers' leavings too."""
        files = self.manifest.files
        for name in sorted(self.before.difference(files)):
            path = self.folder / name
            path.unlink(missing_ok=True)
            _remove_if_empty(path.parent, self.folder)
        for name in self.before:
            path = self.folder / name
            for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
                unfinished.unlink(missing_ok=True)
        write_json(_manifest_path(self.folder, self.manifest.target), self.manifest)


def _manifest_path(folder: Path, target: str) -> Path:
    return folder / f".export-{target}.json"


def _remove_if_empty(folder: Path, top: Path) -> None:
    if folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
