"""`python -m tests.sim SEED [COUNT]`: run seeds one after another, a line each; stop at the first failure and tell it.

A seed always runs in the same way, whatever `PYTHONHASHSEED` is: `test_seeds.py` holds the product to that.
"""

import argparse
import sys
import time

from tests.sim.scenario import Result, simulate, story_of_trouble


def main() -> int:
    """The exit code: 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Run the whole cluster in virtual time.")
    parser.add_argument("seed", type=int, nargs="?", default=1, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many seeds to run")
    parser.add_argument("--story", action="store_true", help="print everything that happened")
    wanted = parser.parse_args()
    for seed in range(wanted.seed, wanted.seed + wanted.count):
        began_s = time.perf_counter()
        result = simulate(seed)
        if wanted.story:
            print("\n".join(result.story.lines))
        print(_line(result, time.perf_counter() - began_s), flush=True)
        if result.failure:
            print(story_of_trouble(result))
            return 1
    return 0


def _line(result: Result, real_s: float) -> str:
    verdict = "FAILED" if result.failure else "holds"
    return f"seed {result.seed}: {verdict}, {result.virtual_s:.0f} s in {real_s:.2f} s, {result.commits} changes"


if __name__ == "__main__":
    sys.exit(main())
