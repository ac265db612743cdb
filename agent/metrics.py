"""What an agent counts as it happens. Whoever does something counts it here; `state_metrics` looks up the rest.

The rule: one registry a process. It holds no state that anything is decided by.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Histogram

from agent.core.dns import wire
from agent.core.probes import Question
from agent.errors import AgentError, StartFailed
from telemetry import metrics

REGISTRY: Final = metrics.registry()

STARTS: Final = Counter(
    "orch_container_starts", "Containers that were to be started, by what came of it", ["outcome"], registry=REGISTRY
)
START_SECONDS: Final = Histogram(
    "orch_container_start_seconds",
    "How long it took from the request to a container's first process",
    buckets=metrics.FAST,
    registry=REGISTRY,
)
RESTARTS: Final = Counter(
    "orch_container_restarts", "Starts of a container that had ended before, in the same task", registry=REGISTRY
)
STEPS_FAILED: Final = Counter(
    "orch_task_step_failures", "Steps of tasks that have failed, by what was to be done", ["step"], registry=REGISTRY
)
PROBES: Final = Counter("orch_probes", "Answers to probes, by probe and result", ["probe", "result"], registry=REGISTRY)
DNS: Final = Counter(
    "orch_dns_queries",
    "Questions for names: answered here with a code, forwarded to the node's own servers, or dropped",
    ["outcome"],
    registry=REGISTRY,
)
SERVED_BYTES: Final = Counter(
    "orch_image_served_bytes", "Bytes of images given to nodes and to other instances", registry=REGISTRY
)
FETCHED_BYTES: Final = Counter(
    "orch_image_fetched_bytes",
    "Bytes of images that have come from the cluster, by from whom",
    ["source"],
    registry=REGISTRY,
)
FETCHED: Final = Counter(
    "orch_image_fetched_blobs",
    "Blobs of images that have come from the cluster, by from whom the last part came",
    ["source"],
    registry=REGISTRY,
)
PULLS: Final = Counter(
    "orch_image_pulls", "Images that were to come from registries, by what came of it", ["outcome"], registry=REGISTRY
)
SESSIONS: Final = Counter("orch_sessions_begun", "Sessions with a leader that have begun", registry=REGISTRY)

FROM_NODE, FROM_CONTROL_PLANE = "node", "controlplane"
_CODES: Final = {
    wire.NOERROR: "noerror",
    wire.FORMERR: "formerr",
    wire.SERVFAIL: "servfail",
    wire.NXDOMAIN: "nxdomain",
    wire.NOTIMP: "notimp",
    wire.REFUSED: "refused",
}
_ANSWERED: Final = {code: DNS.labels(word) for code, word in _CODES.items()}
_OTHER: Final = DNS.labels("other")
DNS_FORWARDED, DNS_DROPPED = DNS.labels("forwarded"), DNS.labels("dropped")
_PROBED: Final = {
    (question, good): PROBES.labels(question.value, "good" if good else "bad")
    for question in Question
    for good in (True, False)
}
for _outcome in ("started", "failed", "refused"):
    STARTS.labels(_outcome)
for _source in (FROM_NODE, FROM_CONTROL_PLANE):
    FETCHED_BYTES.labels(_source)
    FETCHED.labels(_source)
for _outcome in ("pulled", "failed"):
    PULLS.labels(_outcome)


@contextlib.contextmanager
def starting(*, again: bool) -> Iterator[None]:
    """Counts the start of a container that the block makes."""
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "started"
    except AgentError as error:
        outcome = "failed" if isinstance(error, StartFailed) else "refused"
        raise
    finally:
        STARTS.labels(outcome).inc()
        if outcome == "started":
            START_SECONDS.observe(time.perf_counter() - began)
            RESTARTS.inc(again)


def probed(question: Question, *, good: bool) -> None:
    """Counts an answer."""
    _PROBED[question, good].inc()


def answered(packet: bytes) -> None:
    """Counts an answer of the name server, by the code in its header (RFC 1035, 4.1.1)."""
    _ANSWERED.get(packet[3] & 0xF, _OTHER).inc()
