"""The page of metrics, and the page about them."""

import asyncio
import re
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric

from telemetry import metrics
from telemetry.metrics import Look, Reading
from tests.support import aio, metricstable, scraping


@pytest.mark.parametrize(
    ("title", "rows"), [("Of the control plane", metricstable.control_plane()), ("Of a node", metricstable.node())]
)
def test_the_guide_has_every_metric_with_its_labels_and_no_other(title: str, rows: list[str]) -> None:
    written = metricstable.written(title)
    assert len(rows) > 20
    assert written == rows, "docs/metrics.md must have these rows:\n" + "\n".join(rows)


def test_names_are_as_prometheus_wants_them() -> None:
    """`orch_`, base units last, `_total` behind what only grows and behind nothing else."""
    for row in (*metricstable.control_plane(), *metricstable.node()):
        name, kind = re.findall(r"^\| `(\w+)` \| (\w+)", row)[0]
        assert re.fullmatch(r"orch(_[a-z0-9]+)+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent|count|sum|bucket)(_|$)", name), name


@aio.bounded(10)
async def test_what_is_looked_up_is_on_the_page_and_what_fails_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "LOOK_UP_S", 0.05)
    size = Look(name="orch_size_bytes", text="A size", labels=("what",))

    async def well() -> Iterable[Metric]:
        return [size.of({("a",): 3, ("b",): 4})]

    async def slow() -> Iterable[Metric]:
        await asyncio.Event().wait()
        return []

    async def broken() -> Iterable[Metric]:
        raise OSError("it is gone")

    registry = CollectorRegistry()
    Counter("orch_things", "Things", registry=registry).inc(5)
    reading = Reading(registry)
    for name, ask in (("well", well), ("slow", slow), ("broken", broken)):
        reading.look_up(name, ask)
    await reading.text()
    kind, page = await reading.text()
    assert kind.startswith("text/plain")
    assert not scraping.problems(page.decode())
    found = scraping.values(page.decode())
    assert {name: value for name, value in found.items() if not name.startswith("process_")} == {
        "orch_things_total": 5,
        'orch_size_bytes{what="a"}': 3,
        'orch_size_bytes{what="b"}': 4,
        'orch_metrics_failures_total{what="well"}': 0,
        'orch_metrics_failures_total{what="slow"}': 2,
        'orch_metrics_failures_total{what="broken"}': 2,
    }
    kind, page = await reading.text("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")
