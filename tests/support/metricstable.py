"""The tables of docs/metrics.md, from the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from prometheus_client import CollectorRegistry

import agent.metrics
import agent.state_metrics
import controlplane.metrics
import controlplane.state_metrics
from telemetry.metrics import FAILURES, Look

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def control_plane() -> list[str]:
    """The rows of an instance's."""
    return _rows(controlplane.metrics.REGISTRY, controlplane.metrics, controlplane.state_metrics)


def node() -> list[str]:
    """The rows of an agent's."""
    return _rows(agent.metrics.REGISTRY, agent.metrics, agent.state_metrics)


def written(title: str) -> list[str]:
    """The rows below a title of the page."""
    section = PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `orch_.*$", section, re.MULTILINE)


def names(rows: list[str]) -> set[str]:
    return {row.split("`")[1] for row in rows}


def blocks() -> list[str]:
    """The YAML of the page."""
    return re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def _rows(registry: CollectorRegistry, counting: ModuleType, looking: ModuleType) -> list[str]:
    labels = {
        value._name: value._labelnames for value in vars(counting).values() if hasattr(value, "_labelnames")
    }  # the library has no other way to tell
    return sorted({*_counted(registry, labels), *map(_looked, [*_looks(looking), FAILURES])})


def _counted(registry: CollectorRegistry, labels: dict[str, tuple[str, ...]]) -> Iterator[str]:
    for metric in registry.collect():
        if metric.name.startswith("orch_"):
            ending = "_total" if metric.type == "counter" else ""
            yield _row(metric.name + ending, metric.type, labels[metric.name], metric.documentation)


def _looks(module: ModuleType) -> Iterator[Look]:
    return (value for value in vars(module).values() if isinstance(value, Look))


def _looked(look: Look) -> str:
    return _row(look.name, "counter" if look.name.endswith("_total") else "gauge", look.labels, look.text)


def _row(name: str, kind: str, labels: tuple[str, ...], text: str) -> str:
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |".replace("|  |", "| |")
