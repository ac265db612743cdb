"""The kinds of runs, by their seeds. Each has all that those before it have, and something more; so the seeds that are
known to find a bug still do when people come to ask for more.
"""

import random

from controlplane.core import scheduler

FENCED_FROM = 10_000
"""Seeds from here on have fenced services."""
STOCKED_FROM = 20_000
"""In those from here on nodes keep images, too, and the leader is told."""
ORDERLY_FROM = 30_000
"""In those from here on agents also end in order, and say when they are back."""
PARTICULAR_FROM = 40_000
"""In those from here on people also ask for what `particulars` tells, and some clusters fill nodes up (binpack)."""
FAMILIES = (1, FENCED_FROM, STOCKED_FROM, ORDERLY_FROM, PARTICULAR_FROM)
"""Where each kind of run begins."""


def strategy_of(seed: int, chance: random.Random) -> scheduler.Strategy:
    """What the scheduler does with nodes that are as good as each other."""
    return chance.choice(list(scheduler.Strategy)) if seed >= PARTICULAR_FROM else scheduler.Strategy.SPREAD
