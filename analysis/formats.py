"""A finished table as CSV, Markdown and LaTeX.

Owns escaping and layout; knows nothing of runs. The three hold the same cells. Markdown and LaTeX add the caption and
the notes; CSV is header and rows alone, so that any reader of CSV takes it (thousands are grouped by commas, as
printed: `pandas.read_csv(path, thousands=",")`).
"""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

PREAMBLE = r"% Needs \usepackage{booktabs} and \usepackage{graphicx}."
# Shrinks a table that is wider than the text, and leaves the others as they are; \resizebox alone would also enlarge.
FIT_TEXT_WIDTH = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
MANY_COLUMNS = 8  # closer together from here on, so that the letters need not shrink as much

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
    '"': r"\char34{}",  # babel makes umlauts of it in German
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
    """Cells as they are printed, and what stands under them.

    name: of its files, without ending. number: as in "Table 4.5". text_columns: how many, from the left, hold words;
    the others hold numbers and are set flush right.
    """

    name: str
    number: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Give header and rows as CSV, lines ended by a newline; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def to_csv(table: Table) -> str:
    """Give header and rows alone."""
    return csv_text(table.header, table.rows)


def to_markdown(table: Table) -> str:
    """Give a GitHub-flavoured table with its columns aligned in the source too, the caption and the notes under it."""
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
    r"""Give a table environment to \input: booktabs, the caption and the notes under it, \label{tab:4.5}.

    LaTeX numbers it. Any text compiles, with pdfLaTeX too: a character beyond its fonts is printed as its code point.
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


# By file ending, in the order the files are written.
FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def escape_markdown(text: str) -> str:
    """Escape what a Markdown renderer would take for markup or HTML; an underscore inside a word is none."""
    text = re.sub(r"[\\`*<|&~$]|\](?=\()", r"\\\g<0>", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def escape_latex(text: str) -> str:
    """Escape text for LaTeX, so that it is printed as it reads and never ends or breaks the compilation."""
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
    # After \\ and \toprule an opening bracket is an argument, after \\ a star as well.
    return "{}" + row if row.startswith(("[", "*")) else row


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.:=_-]", "-", name.removeprefix("table-"))
