"""`python -m benchmarks.gpu_check --out FOLDER`: all parts, one JSON file that grows, and a page of it.

Exit codes: 0 all parts are ok, of a rehearsal as far as a CPU can be measured · 1 some are not · 2 the call or the
Python is wrong · 143 cut off by SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_check import packages

WORK = Path(__file__).parent.parent.parent / "data" / "gpu-check"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = _parser()
    call = parser.parse_args(arguments)
    if call.wheels:
        folder = call.work.absolute() / "packages"
        packages.unpack(call.wheels, folder)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    problem = packages.problem()
    if problem:
        print(f"gpu-check: {problem}", file=sys.stderr)
        return 2
    from benchmarks.gpu_check.schedule import PARTS, check
    from benchmarks.gpu_check.setting import Setting

    unknown = set(call.parts) - PARTS.keys()
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    cores = 1 if call.rehearse else len(os.sched_getaffinity(0))
    setting = Setting(rehearsal=call.rehearse, work=str(call.work.absolute()), cores=cores)
    return check(setting, call.out.absolute(), call.parts or list(PARTS), call.deadline)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gpu-check.json, .md and -logs.tar.gz")
    parser.add_argument("--parts", nargs="*", default=[], metavar="PART", help="only these, and what they need")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, as little of everything as will run")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="packages that this Python lacks")
    parser.add_argument("--deadline", type=float, default=465, metavar="SECONDS", help="for all of it; default 465")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="images, runs, logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
