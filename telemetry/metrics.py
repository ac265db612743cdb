"""Metrics of a program: what is counted as it happens, and what is looked up when somebody reads.

Two rules. What nobody reads costs nothing but its counting: states, sizes and usage are looked up at a reading. And
what cannot be looked up in time is left out and counted; the rest is told.

Names follow Prometheus: `orch_…`, the unit last (`_seconds`, `_bytes`), `_total` behind what only grows. Labels have
few values, each from a list in the code, or go with something that the cluster bounds: tasks, services, nodes.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Metric, ProcessCollector, disable_created_metrics, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

LOOK_UP_S = 5.0
"""Prometheus gives up after ten by default."""
FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Bounds, in seconds, of what should take milliseconds."""
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""And of what may take seconds."""

Labels = tuple[str, ...]
Values = Mapping[Labels, float]
"""The values of a metric, by those of its labels."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A metric that is looked up. `name` with its `_total` when it only grows."""

    name: str
    text: str
    labels: Labels = ()

    def of(self, values: Values | float) -> Metric:
        """What has been found."""
        grows = self.name.endswith("_total")
        family = (CounterMetricFamily if grows else GaugeMetricFamily)(self.name, self.text, labels=self.labels)
        for labels, value in (values if isinstance(values, Mapping) else {(): values}).items():
            family.add_metric(labels, value)
        return family


FAILURES: Final = Look(
    name="orch_metrics_failures_total",
    text="What could not be looked up at a reading, and was left out",
    labels=("what",),
)

LookUp = Callable[[], Awaitable[Iterable[Metric]]]


def registry() -> CollectorRegistry:
    """Where a program keeps what it counts, with what the kernel counts of the process itself."""
    # A moment beside every counter would be half of the page.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    return made


class Reading:
    """What a reader gets: everything in a registry, and what is looked up for them."""

    def __init__(self, counted: CollectorRegistry) -> None:
        self._counted = counted
        self._look_ups: dict[str, LookUp] = {}
        self._failures: Counter[str] = Counter()

    def look_up(self, what: str, ask: LookUp) -> None:
        """Asks for this at every reading. `what`: one word for the counter of those that failed."""
        self._look_ups[what] = ask
        self._failures[what] = 0

    async def text(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and the page, in the format that a reader accepts."""
        found = await asyncio.gather(*(self._look(what, ask) for what, ask in self._look_ups.items()))
        found.append([FAILURES.of({(what,): count for what, count in self._failures.items()})])
        try:
            # The content type repeats the version that is accepted.
            encode, content_type = exposition.choose_encoder(accept if accept.isascii() else "")
        except TypeError:  # it asks for a version that is no number; the encoder compares it with one
            encode, content_type = exposition.choose_encoder("")
        page = _Page(self._counted, [metric for part in found for metric in part])
        # A thousand tasks are 40 ms of writing, for which names and sessions need not wait.
        return content_type, await asyncio.to_thread(encode, page)

    async def _look(self, what: str, ask: LookUp) -> list[Metric]:
        try:
            async with asyncio.timeout(LOOK_UP_S):
                return list(await ask())
        except Exception as error:  # noqa: BLE001 - a page without one part is better than none
            self._failures[what] += 1
            _log.warning("metrics are left out", what=what, why=str(error) or type(error).__name__)
            return []


class _Page:
    """A registry with more, for the encoder."""

    def __init__(self, counted: CollectorRegistry, more: list[Metric]) -> None:
        self._counted = counted
        self._more = more

    def collect(self) -> Iterable[Metric]:
        yield from self._counted.collect()
        yield from self._more
