"""`apptainer exec` as far as a job needs it, for root: a process in a root of its own that sees only what is bound.

An image is a text file that names the host's folders it consists of. Unlike the real one it binds neither $HOME nor
/tmp by itself. Debian 12 has no Apptainer.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

UNSHARED = "STAND_IN_APPTAINER_UNSHARED"
SYSTEM = ("/proc", "/dev", "/sys")


def write(folder: Path) -> None:
    """Put it into a folder that is to be on PATH."""
    (folder / "apptainer").write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    (folder / "apptainer").chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["exec"])
    parser.add_argument("--nv", action="store_true")
    parser.add_argument("--bind", default="")
    parser.add_argument("image", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if not given.image.exists():
        print(f"FATAL:   could not open image {given.image}: failed to retrieve path", file=sys.stderr)
        sys.exit(255)
    if not os.environ.pop(UNSHARED, None):
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe(command[0], command, {**os.environ, UNSHARED: "1"})  # noqa: S606  no shell is wanted
    root = given.image.with_name(f"root-{os.getpid()}")
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
    (root / "tmp").mkdir()
    for place in [*given.image.read_text().split(), *SYSTEM, *filter(None, given.bind.split(","))]:
        source, _, rest = place.partition(":")
        inside, _, mode = rest.partition(":")
        bind(Path(source), root / (inside or source).lstrip("/"), read_only=mode == "ro")
    os.chroot(root)
    os.chdir("/")
    kept = {"PATH": os.environ["PATH"]} if os.environ.get("APPTAINER_CLEANENV") else dict(os.environ)
    os.execvpe(given.command[0], given.command, kept)  # noqa: S606  no shell is wanted


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    if source.is_symlink():  # /bin, /lib
        target.symlink_to(source.readlink())
        return
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--rbind", source, target], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)


if __name__ == "__main__":
    main()
