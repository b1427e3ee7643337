"""Read and check a CSV file of published numbers.

Owns the format of a reference file: a row per run and metric, with the columns of `analysis/reference/thesis.csv`. Its
content is not trusted: control characters are removed from text, and no name in it becomes a path.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from analysis.errors import AnalysisError
from trainer.data.catalog import DATASETS
from trainer.records.result import METRICS, Metric

THESIS = Path(__file__).parents[1] / "reference" / "thesis.csv"

REQUIRED = ("table", "architecture", "dataset", "ratio", "seed", "metric", "best", "epoch")
OPTIONAL = ("cause", "train_samples")
NO_VALUE = ("", "nan", "inf", "+inf", "-inf")
MOST_DECIMALS = 15  # a float has no more

_NUMBER = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"(\d{1,12})(\.0{1,6})?", re.ASCII)  # pandas writes 173 as 173.0 if the column has empty fields


class ReferenceFileError(AnalysisError):
    """A file of published numbers is unreadable or inconsistent."""


class Published(NamedTuple):
    """One row. best: None if the run has no value; cause then says why, if the file does.

    seed: None for a value not of a single seed. train_samples: training images, None if unknown.
    """

    table: str
    architecture: str
    dataset: str
    ratio: float
    train_samples: int | None
    seed: int | None
    metric: Metric
    best: float | None
    epoch: int | None
    cause: str
    decimals: int
    line: int

    @property
    def size(self) -> tuple[str, float]:
        """What a cell of ours must share to match: the training images, or the ratio if they are unknown."""
        return ("ratio", self.ratio) if self.train_samples is None else ("images", self.train_samples)


@dataclass(frozen=True)
class Reference:
    """The rows of a reference file, in file order. name: of the file, without folder."""

    name: str
    values: tuple[Published, ...]

    @cached_property
    def pairs(self) -> Mapping[tuple[str, str], Mapping[tuple[str, float], Sequence[Published]]]:
        """The rows by architecture and dataset, then by the size of their cell."""
        found: dict[tuple[str, str], dict[tuple[str, float], list[Published]]] = {}
        for value in self.values:
            cells = found.setdefault((value.architecture, value.dataset), {})
            cells.setdefault(value.size, []).append(value)
        return found

    @cached_property
    def rounding_steps(self) -> Mapping[tuple[str, str, Metric], float]:
        """The step to which the values of each architecture, dataset and metric are rounded.

        Taken from the longest number, as a program that drops trailing zeros prints 0.50 as 0.5.
        """
        decimals: dict[tuple[str, str, Metric], int] = {}
        for value in self.values:
            if value.best is not None:
                column = value.architecture, value.dataset, value.metric
                decimals[column] = max(decimals.get(column, 0), value.decimals)
        return {column: 10.0**-most for column, most in decimals.items()}


def read_reference(path: Path) -> Reference:
    """Read a reference file. Raises ReferenceFileError: one sentence with file, line and what was expected."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ReferenceFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ReferenceFileError(f"{path}:{line}: not UTF-8; save the file as CSV in UTF-8") from error
    rows = _rows(path, text)
    _, header = next(rows, (0, []))
    if not header:
        raise ReferenceFileError(f"{path}: empty; expected a line with the columns {', '.join(REQUIRED)}")
    _check_header(path, header)
    values: list[Published] = []
    seen: dict[tuple[object, ...], int] = {}
    kinds: dict[tuple[object, ...], tuple[bool, int]] = {}
    for line, row in rows:
        where = f"{path}:{line}"
        if len(row) != len(header):
            raise ReferenceFileError(f"{where}: {len(row)} fields, expected {len(header)} as in the first line")
        value = _parse(where, line, dict(zip(header, row, strict=True)))
        cell = value.architecture, value.dataset, value.size, value.metric
        other = seen.setdefault((*cell, value.seed), line)
        if other != line:
            raise ReferenceFileError(f"{where}: {_named(value)} is already in line {other}; expected it once")
        seeded, first = kinds.setdefault(cell, (value.seed is not None, line))
        if seeded != (value.seed is not None):
            raise ReferenceFileError(
                f"{where}: {_named(value)} stands beside line {first}; "
                "expected either a value for each seed or one without a seed"
            )
        values.append(value)
    if not values:
        raise ReferenceFileError(f"{path}: no rows under the column names; expected one for each run and metric")
    return Reference(path.name, tuple(values))


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the non-empty rows with their line numbers, fields trimmed."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            row = [_printable(field) for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ReferenceFileError(f"{path}:{reader.line_num}: not CSV: {error}") from error
        if any(row):
            yield reader.line_num, row


def _check_header(path: Path, header: Sequence[str]) -> None:
    known = (*REQUIRED, *OPTIONAL)
    for column in REQUIRED:
        if column not in header:
            close = difflib.get_close_matches(column, [name for name in header if name not in known], n=1)
            hint = f"; is '{close[0]}' a misspelling of it?" if close else f"; the first line has: {', '.join(header)}"
            raise ReferenceFileError(f"{path}:1: no column '{column}'{hint}")
    for name in header:
        if name not in known:
            raise ReferenceFileError(f"{path}:1: unknown column '{name}'{_nearest(name, known)}")
        if header.count(name) > 1:
            raise ReferenceFileError(f"{path}:1: two columns '{name}'; expected one")


def _parse(where: str, line: int, row: Mapping[str, str]) -> Published:
    for column in ("architecture", "dataset", "ratio", "metric"):
        if not row[column]:
            raise ReferenceFileError(f"{where}: '{column}' is empty; expected a value")
    metric = next((metric for metric in METRICS if metric == row["metric"]), None)
    if metric is None:
        raise ReferenceFileError(f"{where}: unknown metric '{row['metric']}'{_nearest(row['metric'], METRICS)}")
    ratio = _number(where, "ratio", row["ratio"])
    if not 0 < ratio <= 1:
        raise ReferenceFileError(f"{where}: 'ratio' is {row['ratio']}; expected a share above 0, at most 1")
    best, decimals = None, 0
    if row["best"].lower() not in NO_VALUE:
        best = _number(where, "best", row["best"])
        decimals = min(max(0, -_exponent(row["best"])), MOST_DECIMALS)
        if metric.endswith("accuracy") and not 0 <= best <= 1:
            raise ReferenceFileError(f"{where}: {metric} is {row['best']}; expected a share from 0 to 1, not percent")
    stated = _whole(where, "train_samples", row.get("train_samples", ""))
    if stated == 0:
        raise ReferenceFileError(f"{where}: 'train_samples' is 0; expected a number of images")
    return Published(
        table=row["table"],
        architecture=row["architecture"],
        dataset=row["dataset"],
        ratio=ratio,
        train_samples=_images(row["dataset"], ratio) if stated is None else stated,
        seed=_whole(where, "seed", row["seed"]),
        metric=metric,
        best=best,
        epoch=None if row["epoch"].lower() == "nan" else _whole(where, "epoch", row["epoch"]),
        cause=row.get("cause", "").rstrip("."),
        decimals=decimals,
        line=line,
    )


def _images(dataset: str, ratio: float) -> int | None:
    """Return how many images of the official training set a ratio keeps, rounded down as for the subsets."""
    return math.floor(ratio * DATASETS[dataset].train_samples) if dataset in DATASETS else None


def _number(where: str, column: str, text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        also = ", -inf, inf or nan" if column == "best" else ""
        raise ReferenceFileError(f"{where}: '{column}' is '{_short(text)}'; expected a number such as 0.43{also}")
    return number


def _whole(where: str, column: str, text: str) -> int | None:
    if not text:
        return None
    match = _WHOLE.fullmatch(text)
    if match is None:
        raise ReferenceFileError(f"{where}: '{column}' is '{_short(text)}'; expected a whole number or nothing")
    return int(match[1])


def _exponent(number: str) -> int:
    exponent = Decimal(number).as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _named(value: Published) -> str:
    seed = "no seed" if value.seed is None else f"seed {value.seed}"
    return f"{value.metric} of {value.architecture}, {value.dataset}, ratio {value.ratio}, {seed}"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of: {', '.join(known)}"


def _printable(text: str) -> str:
    """Trim a field and remove control characters, which could drive a terminal."""
    words = "".join(character if character.isprintable() else " " * character.isspace() for character in text)
    return " ".join(words.split())


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
