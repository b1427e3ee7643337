"""Files outside the repository: the thesis's own, and samples of the real datasets."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

THESIS = REPOSITORY.parent / "shared" / "thesis"
SAMPLES = REPOSITORY.parent / "shared" / "data"


def thesis_file(name: str) -> Path:
    """Return the path of one of the thesis's files, or skip if it is not there."""
    if not (THESIS / name).is_file():
        pytest.skip(f"the thesis's {name} is not beside this checkout")
    return THESIS / name
