"""How a container is, from what it answered: three questions, counted as the schema says.

Two rules: until `startup` was answered well, the other two are not asked; and no answer decides anything by itself,
only a row of them does. Every time here is the container's age in ms, so that a clock that is set changes nothing.

    startup ─well─► readiness ─well─► ready ─bad, bad, bad─► not ready ─well─► ready …
       │            liveness  ─bad, bad, bad─► restart
       └─bad, bad, bad─► restart

    failure_threshold 3, success_threshold 2;  answers of readiness:  good bad bad bad good good
                                               ready:                 yes  yes yes no  no   yes
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from protos.orch.v1 import objects_pb2 as pb
from protos.probes import describe

FIRST_ASKING_MS = 100
"""A container is asked within this time after its start; chance says when, so that not all are asked at once."""

SHORTEST_INTERVAL_MS = 100
LARGEST_PORT = 65_535


class Question(Enum):
    """What is asked; the value is the word for people."""

    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to ask."""

    container_id: str
    address: str
    container: pb.Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of asking once."""

    good: bool
    message: str = ""  # what was wrong: `connection refused`


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The answers to one question so far."""

    due: int  # when it is asked next
    well: bool = False  # what the answers amount to
    good: int = 0  # good answers since the last bad one
    bad: int = 0  # bad answers that count, since the last good one
    was_bad: bool = False  # there was a bad answer that counts
    message: str = ""  # of the last bad answer, until the answers amount to well


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A container's questions and what was answered."""

    probes: pb.Probes
    counts: Mapping[Question, Count]
    jitter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from the answers."""

    ready: bool
    restart: str = ""  # why the container is to be restarted; empty: it is not
    message: str = ""  # why it is not ready, once it has said so


def of_hook(hook: pb.Hook) -> pb.Probe | None:
    """A hook as one asking; None for one that only waits."""
    if hook.HasField("exec"):
        return pb.Probe(exec=hook.exec, timeout=hook.timeout)
    return pb.Probe(http=hook.http, timeout=hook.timeout) if hook.HasField("http") else None


def questions(probes: pb.Probes) -> tuple[Question, ...]:
    """What is asked of a container. A question that this version does not know how to ask is left out."""
    return tuple(question for question in Question if _can_be_asked(probe_of(probes, question)))


def decide_ready(probes: pb.Probes) -> bool:
    """Whether a container that has just started is not ready until it has answered."""
    return any(question is not Question.LIVENESS for question in questions(probes))


def begin(probes: pb.Probes, *, age_ms: int, jitter: float, adopted: bool, was_ready: bool) -> Health:
    """Before the first answer. `jitter` is in [0, 1).

    A container that was `adopted` from an earlier agent stays ready if it `was_ready`, until its answers say otherwise:
    it has started, and many like it were adopted at the same moment, so it is asked within an interval.
    """
    assert 0 <= jitter < 1, jitter
    started = adopted and was_ready
    counts = {}
    for question in questions(probes):
        longest = interval_ms(probe_of(probes, question)) if adopted else FIRST_ASKING_MS
        due = age_ms + int(longest * jitter)
        counts[question] = Count(due=due, well=started and question is not Question.LIVENESS)
    health = Health(probes=probes, counts=counts, jitter=jitter)
    return health if adopted or Question.STARTUP in counts else _liveness_later(health, age_ms)


def open_questions(health: Health) -> tuple[Question, ...]:
    """What is asked now; nothing once the container is to be restarted."""
    if _restart(health):
        return ()
    startup = health.counts.get(Question.STARTUP)
    if startup is not None and not startup.well:
        return (Question.STARTUP,)
    return tuple(question for question in health.counts if question is not Question.STARTUP)


def is_coming_up(health: Health, question: Question) -> bool:
    """Whether the container may answer well any moment now: it has not yet since its start."""
    count = health.counts[question]
    return question is not Question.LIVENESS and not count.well and not count.was_bad


def advance(health: Health, question: Question, answer: Answer, *, asked_ms: int, now_ms: int) -> Health:
    """After an answer to an open question that was asked at `asked_ms` and came at `now_ms`."""
    probe, before = probe_of(health.probes, question), health.counts[question]
    due = max(asked_ms + interval_ms(probe), now_ms)
    after = dataclasses.replace(_counted(before, probe, answer, now_ms), due=due)
    changed = dataclasses.replace(health, counts={**health.counts, question: after})
    if question is Question.STARTUP and after.well:
        return _asked_from(changed, now_ms)
    return changed


def verdict(health: Health) -> Verdict:
    """What the answers amount to."""
    gates = [question for question in (Question.STARTUP, Question.READINESS) if question in health.counts]
    closed = next((question for question in gates if not health.counts[question].well), None)
    return Verdict(
        ready=closed is None,
        restart=_restart(health),
        message=_why(health, closed) if closed is not None else "",
    )


def interval_ms(probe: pb.Probe) -> int:
    return max(SHORTEST_INTERVAL_MS, probe.interval)


def port_number(container: pb.Container, port: str) -> int | None:
    """The number of a port that is given by name or number; None when the container can have no such port."""
    if port.isascii() and port.isdecimal():
        return int(port) if 0 < int(port) <= LARGEST_PORT else None
    return next((each.target for each in container.ports if each.name == port), None)


def _can_be_asked(probe: pb.Probe) -> bool:
    return probe.HasField("http") or probe.HasField("tcp") or probe.HasField("grpc") or probe.HasField("exec")


def _counted(before: Count, probe: pb.Probe, answer: Answer, now_ms: int) -> Count:
    if answer.good:
        good = before.good + 1
        well = before.well or good >= (max(1, probe.success_threshold) if before.was_bad else 1)
        return dataclasses.replace(before, good=good, bad=0, well=well, message="" if well else before.message)
    if now_ms < probe.start_period:
        return dataclasses.replace(before, message=answer.message)
    bad = before.bad + 1
    return dataclasses.replace(
        before,
        good=0,
        bad=bad,
        was_bad=True,
        well=before.well and bad < _failures_needed(probe),
        message=answer.message,
    )


def _asked_from(health: Health, now_ms: int) -> Health:
    """The container has started: the other questions begin, readiness at once."""
    counts = {**health.counts}
    if Question.READINESS in counts:
        counts[Question.READINESS] = dataclasses.replace(counts[Question.READINESS], due=now_ms)
    return _liveness_later(dataclasses.replace(health, counts=counts), now_ms)


def _liveness_later(health: Health, now_ms: int) -> Health:
    """What has just started lives: it is asked after half an interval at the earliest, a whole one at the latest."""
    count = health.counts.get(Question.LIVENESS)
    if count is None:
        return health
    due = now_ms + int(interval_ms(health.probes.liveness) * (1 + health.jitter) / 2)
    return dataclasses.replace(health, counts={**health.counts, Question.LIVENESS: dataclasses.replace(count, due=due)})


def _restart(health: Health) -> str:
    """Why the container is to be restarted: `startup` or `liveness` was answered badly too often."""
    for question, count in health.counts.items():
        gives_up = question is not Question.READINESS and not (question is Question.STARTUP and count.well)
        if gives_up and count.bad >= _failures_needed(probe_of(health.probes, question)):
            return _why(health, question)
    return ""


def _why(health: Health, question: Question) -> str:
    """`liveness probe failed: HTTP GET /healthz on port 8080: connection refused`; empty before a bad answer."""
    message = health.counts[question].message
    if not message:
        return ""
    return f"{question.value} probe failed: {describe(probe_of(health.probes, question))}: {message}"


def _failures_needed(probe: pb.Probe) -> int:
    return max(1, probe.failure_threshold)


def probe_of(probes: pb.Probes, question: Question) -> pb.Probe:
    match question:
        case Question.STARTUP:
            return probes.startup
        case Question.LIVENESS:
            return probes.liveness
        case Question.READINESS:
            return probes.readiness
