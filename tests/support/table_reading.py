"""Read tables back as a reader sees them."""

import csv
from pathlib import Path

from markdown_it import MarkdownIt


def cells(path: Path) -> list[list[str]]:
    """Read a CSV's fields as printed."""
    return list(csv.reader(path.read_text().splitlines()))


def read_markdown(text: str) -> tuple[list[list[str]], list[str]]:
    """Render Markdown; returns the table's cells and the paragraphs under it."""
    rows: list[list[str]] = []
    paragraphs: list[str] = []
    in_table = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            in_table = True
        elif token.type == "table_close":
            in_table = False
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "text_special"}, token.content
            shown = "".join(child.content for child in token.children or [])
            if in_table:
                rows[-1].append(shown)
            else:
                paragraphs.append(shown)
    return rows, paragraphs
