"""A table as CSV, Markdown and LaTeX.

Owns escaping and layout; knows nothing of runs. All three formats hold the same cells. Markdown and LaTeX add caption
and notes; CSV is header and rows alone, so that any CSV reader accepts it (thousands are grouped by commas, as
printed: `pandas.read_csv(path, thousands=",")`).
"""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

PREAMBLE = r"% Needs \usepackage{booktabs} and \usepackage{graphicx}."
# Shrinks tables wider than the text and leaves the others; \resizebox alone would also enlarge.
FIT_TEXT_WIDTH = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
MANY_COLUMNS = 8  # wider tables get narrower gaps, so that their letters shrink less

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "#": r"\#",
    "&": r"\&",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"{}`",  # "?`" and "!`" are Spanish punctuation
    '"': r"\char34{}",  # in German, babel turns it into umlauts
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\ldots{}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "→": r"\ensuremath{\to}",
    "†": r"\dag{}",
}
_COMBINING_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327")


@dataclass(frozen=True)
class Table:
    """Cells as printed, with caption and notes.

    name: of its files, without extension. number: as in "Table 4.5". text_columns: how many columns from the left hold
    text; the others hold numbers and are right-aligned.
    """

    name: str
    number: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format header and rows as CSV with newline line endings; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def to_csv(table: Table) -> str:
    """Format header and rows, without caption and notes."""
    return csv_text(table.header, table.rows)


def to_markdown(table: Table) -> str:
    """Format a GitHub-flavoured table, aligned in the source too, with caption and notes under it."""
    grid = [[escape_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(3, *(len(row[column]) for row in grid)) for column in range(len(table.header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < table.text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if column < table.text_columns else "-" * (width - 1) + ":" for column, width in enumerate(widths)
    ]
    under = [f"Table {table.number}. {table.caption}", *table.notes]
    lines = [line(grid[0]), line(rule), *map(line, grid[1:])]
    return "\n".join(lines) + "".join(f"\n\n{escape_markdown(paragraph)}" for paragraph in under) + "\n"


def to_latex(table: Table) -> str:
    r"""Format a table environment to \input: booktabs, caption and notes under it, \label{tab:4.5}.

    LaTeX numbers it. Any text compiles, with pdfLaTeX too: characters outside its fonts are printed as code points.
    """
    columns = "l" * table.text_columns + "r" * (len(table.header) - table.text_columns)
    lines = [
        PREAMBLE,
        r"\begin{table}[htbp]",
        r"\centering",
        *([r"\setlength{\tabcolsep}{4pt}"] if len(table.header) > MANY_COLUMNS else []),
        FIT_TEXT_WIDTH,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(table.header),
        r"\midrule",
        *map(_latex_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{_label(table.name)}}}",
        *(rf"\par\smallskip{{\footnotesize\raggedright {escape_latex(note)}\par}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


# By file extension, in the order written.
FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def escape_markdown(text: str) -> str:
    """Escape what Markdown reads as markup or HTML; an underscore inside a word is not."""
    text = re.sub(r"[\\`*<|&~$]|\](?=\()", r"\\\g<0>", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX prints it literally and never fails on it."""
    escaped = "".join(_LATEX.get(character) or _latex_character(character) for character in text)
    return re.sub("-(?=-)", "-{}", escaped)  # --yes is an option, not a dash


def _latex_character(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    decomposed = unicodedata.normalize("NFD", character)
    if decomposed[0].isascii() and _COMBINING_ACCENTS.issuperset(decomposed[1:]):
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(escape_latex, cells)) + r" \\"
    # LaTeX takes an opening bracket after \\ or \toprule, and a star after \\, as an argument.
    return "{}" + row if row.startswith(("[", "*")) else row


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.:=_-]", "-", name.removeprefix("table-"))
