"""The packages that the check needs, from the Python that runs it or from a folder of wheels. Standard library only."""

import importlib
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import ZipFile

TORCH = "torch>=2.7"
# By what is imported of each. Lightning and pytest are asked for by the parts that use them.
NEEDED = {
    "numpy": "numpy",
    "PIL": "pillow",
    "psutil": "psutil",
    "pydantic": "pydantic>=2.7",
    "safetensors": "safetensors",
    "yaml": "pyyaml",
}


def unpack(wheels: Path, folder: Path) -> None:
    """Unpack wheels, whose modules then come before those that Python has: an extension cannot be run from a zip."""
    shutil.rmtree(folder, ignore_errors=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with ZipFile(wheel) as archive:
            archive.extractall(folder)


def problem() -> str | None:
    """Say in a sentence which packages are missing and how to bring them; None if none is."""
    missing = [] if _torch() >= (2, 7) else [TORCH]
    missing += [wanted for module, wanted in NEEDED.items() if not _imports(module)]
    if not missing:
        return None
    python = "{}.{}".format(*sys.version_info)
    names = " ".join(f"'{name}'" for name in missing)
    return (
        f"{sys.executable} (Python {python}) lacks {', '.join(missing)}; with a network, 'pip download --dest wheels "
        f"--only-binary :all: --python-version {python} {names}', then here 'make gpu-check WHEELS=wheels'"
    )


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _torch() -> tuple[int, ...]:
    """Read torch's version, which takes no seconds as its import does; empty without torch."""
    try:
        return tuple(map(int, version("torch").split(".")[:2]))
    except PackageNotFoundError:
        return ()
