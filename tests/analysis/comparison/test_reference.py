"""Published numbers read from a file: the thesis's own, others of the same form, and every way to get one wrong."""

import csv
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY
from shared_files import thesis_file

from analysis import AnalysisError
from analysis.comparison.published import OPTIONAL, REQUIRED, THESIS, ReferenceFileError, read_reference

HEADER = ",".join(REQUIRED)
GOOD = f"""{HEADER}
1,resnet18,cifar10,0.02,42,val_accuracy,0.43,173
1,resnet18,cifar10,0.02,43,val_accuracy,0.41,90
"""


def written(folder: Path, content: str | bytes) -> Path:
    """Write a reference file."""
    path = folder / "numbers.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_thesis_s_numbers_are_those_of_its_transcription() -> None:
    """Row by row and column by column, as text; only the cause is added, and only where there is no value."""
    ours = list(csv.DictReader(THESIS.read_text().splitlines()))
    theirs = list(csv.DictReader(thesis_file("published.csv").read_text().splitlines()))
    assert [{name: row[name] for name in REQUIRED} for row in ours] == theirs
    assert all(bool(row["cause"]) == (row["epoch"] == "nan") for row in ours)


def test_the_thesis_holds_three_tables_of_39_runs_and_seven_gaps_with_their_causes() -> None:
    """468 rows; the runs without values are the six CIFAR-10 runs at ratio 0.01 and the one that died unnoticed."""
    values = read_reference(THESIS).values
    assert Counter(value.table for value in values) == {"4.5": 156, "4.6": 156, "4.7": 156}
    assert len({(v.architecture, v.dataset, v.ratio, v.seed, v.metric) for v in values}) == 468
    gaps: dict[tuple[str, str, float, int | None], set[str]] = {}
    for value in values:
        if value.best is None:
            gaps.setdefault((value.architecture, value.dataset, value.ratio, value.seed), set()).add(value.cause)
    no_step = {(name, "cifar10", 0.01, seed) for name in ("resnet18", "vit") for seed in (42, 43, 44)}
    died = ("resnet18", "tinyimagenet", 1.0, 42)
    assert set(gaps) == {*no_step, died}
    assert all(len(causes) == 1 for causes in gaps.values())
    assert all("less than one batch of 128" in next(iter(gaps[run])) for run in no_step)
    assert "caught every exception" in next(iter(gaps[died]))


def test_the_thesis_s_ratios_are_the_training_images_of_its_table_4_2() -> None:
    """Each ratio of the official training set, rounded down, as the chapter lists them."""
    images = {(v.dataset, v.ratio): v.train_samples for v in read_reference(THESIS).values}
    ratios = [0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.4, 0.6, 0.8, 1.0]
    of_cifar10 = [500, 1000, 1500, 2500, 3750, 5000, 7500, 10_000, 12_500, 20_000, 30_000, 40_000, 50_000]
    assert [images["cifar10", ratio] for ratio in ratios] == of_cifar10
    assert [images["tinyimagenet", ratio] for ratio in ratios] == [2 * count for count in of_cifar10]


@pytest.mark.parametrize(
    "content",
    {
        "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
        "carriage returns": GOOD.replace("\n", "\r\n"),
        "spaces": GOOD.replace(",", " , "),
        "blank lines": GOOD.replace("\n", "\n\n"),
        "epochs and seeds that pandas made floats": GOOD.replace(",173", ",173.0").replace(",42,", ",42.0,"),
        "columns in another order": "\n".join(",".join(reversed(line.split(","))) for line in GOOD.split()),
    }.items(),
    ids=lambda item: item[0],
)
def test_harmless_differences_of_form_change_nothing(tmp_path: Path, content: tuple[str, str | bytes]) -> None:
    """What spreadsheets and editors do to a CSV is not the reader's concern."""
    found = read_reference(written(tmp_path, content[1])).values
    expected = read_reference(written(tmp_path, GOOD)).values
    assert [value._replace(line=0) for value in found] == [value._replace(line=0) for value in expected]


def test_what_may_be_left_out_may_be_left_out(tmp_path: Path) -> None:
    """A value of no seed, of no table, without an epoch; nan, inf and nothing are no value; own names are kept."""
    rows = (
        ",mixer,birds,0.5,,val_loss,1.25,,,600\n"
        ",mixer,birds,1.0,,val_loss,nan,nan,it burnt.,\n"
        ",mixer,cifar10,1.0,,val_loss,-inf,,,\n"
    )
    values = read_reference(written(tmp_path, f"{HEADER},{','.join(OPTIONAL)}\n{rows}")).values
    assert [value.best for value in values] == [1.25, None, None]
    assert [value.train_samples for value in values] == [600, None, 50_000]
    assert (values[0].seed, values[0].epoch, values[0].table, values[1].cause) == (None, None, "", "it burnt")


def test_the_rounding_is_that_of_the_longest_number_of_a_column(tmp_path: Path) -> None:
    """0.5 beside 0.43 is 0.50 without its zero; another metric, and an exponent, have their own."""
    rows = (
        "1,a,b,0.1,1,val_accuracy,0.5,1\n1,a,b,0.2,1,val_accuracy,0.43,1\n1,a,b,0.3,1,val_accuracy,0.6,1\n"
        "1,a,b,0.1,1,train_loss,2.5e-3,1\n"
    )
    steps = read_reference(written(tmp_path, f"{HEADER}\n{rows}")).rounding_steps
    assert steps == {("a", "b", "val_accuracy"): 0.01, ("a", "b", "train_loss"): 0.0001}


def one(row: str) -> str:
    return f"{HEADER}\n{row}\n"


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "numbers.csv: empty; expected a line with the columns table, architecture"),
    "only blank lines": ("\n\n , ,\n", "numbers.csv: empty; expected a line with the columns"),
    "no rows": (HEADER, "numbers.csv: no rows under the column names"),
    "not UTF-8": (GOOD.encode() + b"\xff\xfe", "numbers.csv:4: not UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "numbers.csv:1: not UTF-8"),
    "missing column": (GOOD.replace("metric", "metrics"), ":1: no column 'metric'; is 'metrics' a misspelling of it?"),
    "semicolons": (GOOD.replace(",", ";"), ":1: no column 'table'; the first line has: table;architecture;"),
    "unknown column": (GOOD.replace("epoch", "epoch,causes"), ":1: unknown column 'causes'; did you mean 'cause'?"),
    "column twice": (GOOD.replace("epoch", "epoch,seed"), ":1: two columns 'seed'; expected one"),
    "a field too few": (one("1,resnet18,cifar10,0.02,42,val_accuracy,0.43"), ":2: 7 fields, expected 8"),
    "a field too many": (one("1,resnet18,cifar10,0.02,42,val_accuracy,0,43,1"), ":2: 9 fields, expected 8"),
    "unknown metric": (
        one("1,resnet18,cifar10,0.02,42,val_acuracy,0.43,1"),
        ":2: unknown metric 'val_acuracy'; did you mean 'val_accuracy'?",
    ),
    "metric beyond recognition": (
        one("1,a,b,0.02,42,f1,0.43,1"),
        ":2: unknown metric 'f1'; expected one of: train_loss, train_accuracy, val_loss, val_accuracy",
    ),
    "value not a number": (one("1,a,b,0.02,42,val_loss,low,1"), ":2: 'best' is 'low'; expected a number such as 0.43,"),
    "value in Python": (one("1,a,b,0.02,42,val_loss,1_000,1"), ":2: 'best' is '1_000'; expected a number"),
    "value beyond all bounds": (one("1,a,b,0.02,42,val_loss,1e999,1"), ":2: 'best' is '1e999'; expected a number"),
    "percent": (one("1,a,b,0.02,42,val_accuracy,43,1"), ":2: val_accuracy is 43; expected a share from 0 to 1"),
    "no ratio": (one("1,a,b,,42,val_loss,1,1"), ":2: 'ratio' is empty; expected a value"),
    "ratio of nothing": (one("1,a,b,0,42,val_loss,1,1"), ":2: 'ratio' is 0; expected a share above 0, at most 1"),
    "ratio in percent": (one("1,a,b,2,42,val_loss,1,1"), ":2: 'ratio' is 2; expected a share above 0, at most 1"),
    "ratio not a number": (one("1,a,b,nan,42,val_loss,1,1"), ":2: 'ratio' is 'nan'; expected a number such as 0.43"),
    "seed not whole": (one("1,a,b,0.1,4.2,val_loss,1,1"), ":2: 'seed' is '4.2'; expected a whole number or nothing"),
    "epoch below zero": (one("1,a,b,0.1,42,val_loss,1,-3"), ":2: 'epoch' is '-3'; expected a whole number"),
    "images endless": (
        f"{HEADER},train_samples\n1,a,b,0.1,42,val_loss,1,1,{'9' * 5000}\n",
        ":2: 'train_samples' is '9999999999999999999999999999999999999999...'; expected a whole number",
    ),
    "no images": (f"{HEADER},train_samples\n1,a,b,0.1,42,val_loss,1,1,0\n", ":2: 'train_samples' is 0; expected a num"),
    "row twice": (
        GOOD + "2,resnet18,cifar10,0.020,42.0,val_accuracy,0.4,1",
        ":4: val_accuracy of resnet18, cifar10, ratio 0.02, seed 42 is already in line 2; expected it once",
    ),
    "as many images twice": (
        f"{HEADER},train_samples\n1,a,b,0.1,1,val_loss,1,1,50\n1,a,b,0.2,1,val_loss,1,1,50\n",
        ":3: val_loss of a, b, ratio 0.2, seed 1 is already in line 2",
    ),
    "a mean among seeds": (
        GOOD + "1,resnet18,cifar10,0.02,,val_accuracy,0.42,",
        ":4: val_accuracy of resnet18, cifar10",
    ),
    "quote left open": (GOOD + '1,"resnet18,cifar10', ":4: not CSV: unexpected end of data"),
    "a field of a megabyte": (GOOD + "x" * 1_000_000, ":4: not CSV: field larger than field limit"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_gets_one_sentence(tmp_path: Path, case: str) -> None:
    """File, line, what is there and what was expected, on one line of text."""
    content, sentence = BROKEN[case]
    path = written(tmp_path, content)
    with pytest.raises(ReferenceFileError) as caught:
        read_reference(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert sentence in message
    assert message.isprintable()
    assert isinstance(caught.value, AnalysisError)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """Absent, or a folder."""
    with pytest.raises(ReferenceFileError, match=r"absent\.csv: cannot be read: No such file"):
        read_reference(tmp_path / "absent.csv")
    with pytest.raises(ReferenceFileError, match="cannot be read: Is a directory"):
        read_reference(tmp_path)


def test_text_of_a_reference_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """Escape sequences and line breaks in a name or cause come out as harmless characters."""
    row = '1,"a\x1b[2J",b,0.1,1,val_loss,nan,,"it\nburnt \x07\u202e"\n'
    value = read_reference(written(tmp_path, f"{HEADER},cause\n{row}")).values[0]
    assert (value.architecture, value.cause) == ("a[2J", "it burnt")


@pytest.mark.slow
def test_a_huge_file_is_read_in_time_that_grows_with_its_rows(tmp_path: Path) -> None:
    """Sixteen times the rows cost no more than about sixteen times the time: nothing is compared with everything."""

    def seconds(rows: int) -> float:
        lines = (f"1,a,b,0.1,{seed},val_loss,1.5,3" for seed in range(rows))
        path = written(tmp_path, f"{HEADER}\n" + "\n".join(lines))
        started = time.process_time()
        assert len(read_reference(path).values) == rows
        return time.process_time() - started

    few = min(seconds(2_000) for _ in range(3))
    assert seconds(32_000) < 16 * few * 4


def test_reading_a_reference_loads_neither_pandas_nor_scipy_nor_torch() -> None:
    """What says that a file is wrong answers at once."""
    code = (
        "import sys\nfrom analysis.comparison.published import THESIS, read_reference\nread_reference(THESIS)\n"
        "import analysis.comparison.files\n"
        "for heavy in ('torch', 'pandas', 'scipy', 'matplotlib'): assert heavy not in sys.modules, heavy"
    )
    root = REPOSITORY
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=root)
