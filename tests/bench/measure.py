"""Cases that are measured beside a peer, and the table and rows that come of them.

The rule: ours and the peer's take turns in one run, on the machine as it is at that moment, and only their ratio is
compared between machines.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Measure = Callable[[], float]
IDLE, CALM_LOOKS = 0.9, 2
LOOK_S, LOOKS = 0.3, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure. Smaller is better.

    `mark` is what ours should stay under, in the same unit: by the median, or in each round (`each`). `ratio_mark` is
    what its ratio to the peer's should. Each round of a case that is `rested` begins when the processors have nothing
    to do: what the one clears away afterwards, such as a hundred network namespaces, is not measured as the other's.
    """

    name: str
    unit: str
    ours: Measure
    peer: Measure | None
    peer_name: str
    rounds: int
    mark: float | None = None
    ratio_mark: float | None = None
    each: bool = False
    rested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the rounds gave. `peer` is empty where the peer is absent."""

    case: Case
    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's, by medians; under 1 is faster or smaller."""
        return statistics.median(self.ours) / statistics.median(self.peer) if self.peer else None

    @property
    def marked(self) -> float:
        """What the mark is about."""
        return max(self.ours) if self.case.each else statistics.median(self.ours)

    @property
    def missed(self) -> bool:
        """Whether ours or its ratio is beyond its mark. What has no peer has no ratio."""
        pairs = ((self.marked, self.case.mark), (self.ratio, self.case.ratio_mark))
        return any(value is not None and mark is not None and value > mark for value, mark in pairs)

    def row(self) -> dict[str, Any]:
        """As the JSON file has it."""
        return {
            "case": self.case.name,
            "ours": statistics.median(self.ours),
            "peer": statistics.median(self.peer) if self.peer else None,
            "peer_name": self.case.peer_name,
            "ratio": self.ratio,
            "unit": self.case.unit,
            "n": len(self.ours),
        }


def run(case: Case) -> Result:
    """All rounds, taking turns."""
    ours, peer = [], []
    for _ in range(case.rounds):
        ours.append(_measure(case, case.ours))
        if case.peer is not None:
            peer.append(_measure(case, case.peer))
    return Result(case=case, ours=tuple(ours), peer=tuple(peer))


def _measure(case: Case, measure: Measure) -> float:
    if case.rested:
        _rest()
    return measure()


def _rest() -> None:
    """Returns when the processors have done next to nothing for a moment, or says that they do not come to that."""
    calm, before = 0, _ticks()
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        after = _ticks()
        idle, whole = after[0] - before[0], after[1] - before[1]
        calm = calm + 1 if idle >= IDLE * whole else 0
        if calm == CALM_LOOKS:
            return
        before = after
    print(
        f"bench: the machine does not come to rest within {LOOK_S * LOOKS:.0f} s: something else works", file=sys.stderr
    )


def _ticks() -> tuple[int, int]:
    """How long all processors had nothing to do, and all of their time (proc(5))."""
    counts = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return counts[3] + counts[4], sum(counts)


def table(results: Sequence[Result]) -> str:
    """For people: medians, spread (half the range, in per cent of the median), the worst of ours, ratio."""
    header = ("CASE", "OURS", "", "WORST", "PEER", "", "RATIO", "MARK", "N", "PEER'S NAME")
    rows = [header, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(result: Result) -> tuple[str, ...]:
    case = result.case
    marks = (
        _met(result.marked, case.mark, ""),
        _met(result.ratio, case.ratio_mark, "x"),
    )
    return (
        case.name,
        *_summary(result.ours, case.unit),
        f"{max(result.ours):.3g} {case.unit}",
        *(_summary(result.peer, case.unit) if result.peer else ("absent", "")),
        f"{result.ratio:.2f}" if result.ratio is not None else "-",
        " ".join(filter(None, marks)),
        str(len(result.ours)),
        case.peer_name,
    )


def _met(value: float | None, mark: float | None, unit: str) -> str:
    if mark is None or value is None:
        return ""
    return f"≤ {mark:.3g}{unit} {'✓' if value <= mark else '✗'}"


def _summary(values: Sequence[float], unit: str) -> tuple[str, str]:
    median = statistics.median(values)
    spread = (max(values) - min(values)) / 2 / median * 100 if median else 0.0
    return f"{median:.3g} {unit}", f"±{spread:.0f} %"
