"""`make bench`: measures every subject, prints the table, and writes the rows as JSON.

    python -m tests.bench.run [--only cluster] [--json out.json]

A subject is a module beside this one with `cases()`, a context manager that yields its cases.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from tests.bench import measure

FOLDER = Path(__file__).parent
NOT_SUBJECTS = {"run", "measure"}


def subjects() -> list[str]:
    """Names of the modules, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_SUBJECTS and path.stem[0] != "_")


def main() -> int:
    """The exit code: not 0 when a figure misses its mark, though all are measured first."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=subjects(), help="this subject alone")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root: it starts containers", file=sys.stderr)
        return 1
    results: list[measure.Result] = []
    for name in [options.only] if options.only else subjects():
        with importlib.import_module(f"tests.bench.{name}").cases() as cases:
            for case in cases:
                print(f"measuring {case.name} …", file=sys.stderr, flush=True)
                results.append(measure.run(case))
    print(measure.table(results))
    if options.json:
        options.json.write_text(json.dumps([result.row() for result in results], indent=1) + "\n")
    missed = [result.case.name for result in results if result.missed]
    if missed:
        print(f"bench: {len(missed)} of {len(results)} cases missed their marks: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
