"""What answers amount to: rows of them as tables, and what no row of answers may do."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import probes
from agent.core.probes import Answer, Health, Question
from protos.orch.v1 import objects_pb2 as pb
from protos.probes import describe

STARTUP, LIVENESS, READINESS = Question.STARTUP, Question.LIVENESS, Question.READINESS
GOOD, BAD = Answer(good=True), Answer(good=False, message="connection refused")
INTERVAL = 1_000


def probe(*, good: int = 1, bad: int = 3, start_period: int = 0) -> pb.Probe:
    http = pb.HttpProbe(port="8080", path="/healthz")
    return pb.Probe(
        http=http,
        interval=INTERVAL,
        timeout=500,
        success_threshold=good,
        failure_threshold=bad,
        start_period=start_period,
    )


def started(asked: pb.Probes, **more: bool) -> Health:
    arguments = {"adopted": False, "was_ready": False, **more}
    return probes.begin(asked, age_ms=0, jitter=0.5, **arguments)


def answer(health: Health, question: Question, answers: str, *, from_ms: int = 0) -> Health:
    """`gbb`: a good answer and two bad ones, an interval apart."""
    for number, letter in enumerate(answers):
        now_ms = from_ms + number * INTERVAL
        given_answer = GOOD if letter == "g" else BAD
        health = probes.advance(health, question, given_answer, asked_ms=now_ms, now_ms=now_ms)
    return health


def rows(health: Health, question: Question, answers: str) -> str:
    """Whether it is ready after each answer: `+` or `-`."""
    told = ""
    for letter in answers:
        health = answer(health, question, letter)
        told += "+" if probes.verdict(health).ready else "-"
    return told


@pytest.mark.parametrize(
    ("good", "bad", "answers", "ready"),
    [
        (1, 3, "g", "+"),
        (1, 3, "bbbbg", "----+"),
        (1, 3, "gbbgbbb", "++++++-"),
        (1, 1, "gbg", "+-+"),
        (2, 3, "gbbbgg", "+++--+"),
        (3, 1, "bggbggg", "------+"),
        (3, 2, "gbbggbggg", "++------+"),
    ],
    ids=["at once", "once it answers", "three in a row", "one", "two in a row", "a bad one between", "both"],
)
def test_readiness(good: int, bad: int, answers: str, ready: str) -> None:
    """One row an answer, counted as the schema says: good ones in a row after a bad one, bad ones in a row."""
    assert rows(started(pb.Probes(readiness=probe(good=good, bad=bad))), READINESS, answers) == ready


@pytest.mark.parametrize(
    ("question", "answers", "restarts"),
    [
        (LIVENESS, "bb", False),
        (LIVENESS, "bbb", True),
        (LIVENESS, "bbgbb", False),
        (LIVENESS, "gggbbb", True),
        (STARTUP, "bb", False),
        (STARTUP, "bbb", True),
        (READINESS, "bbbbbbbbb", False),
    ],
)
def test_restarts(question: Question, answers: str, *, restarts: bool) -> None:
    """A container is restarted when it does not start, or does not live any more; not being ready is no reason."""
    health = answer(started(pb.Probes(**{question.value: probe()})), question, answers)
    why = f"{question.value} probe failed: HTTP GET /healthz on port 8080: connection refused"
    assert probes.verdict(health).restart == (why if restarts else "")
    assert (probes.open_questions(health) == ()) is restarts


def test_startup_comes_first() -> None:
    """Nothing else is asked until it was answered well; then readiness at once, and liveness a little later."""
    health = started(pb.Probes(startup=probe(bad=30), liveness=probe(), readiness=probe()))
    assert probes.open_questions(health) == (STARTUP,)
    health = answer(health, STARTUP, "bbbbbb")
    assert probes.open_questions(health) == (STARTUP,)
    assert probes.verdict(health).message.startswith("startup probe failed: HTTP GET /healthz")
    health = answer(health, STARTUP, "g", from_ms=6 * INTERVAL)
    assert probes.open_questions(health) == (LIVENESS, READINESS)
    assert health.counts[READINESS].due == 6 * INTERVAL
    assert 6.5 * INTERVAL <= health.counts[LIVENESS].due <= 7 * INTERVAL
    assert not probes.verdict(health).ready, "it has started, and did not say that it is ready"
    assert probes.verdict(answer(health, READINESS, "g")).ready


def test_without_readiness_a_container_that_has_started_is_ready() -> None:
    """And without any probe that guards it, one that runs."""
    assert not probes.verdict(started(pb.Probes(startup=probe()))).ready
    assert probes.verdict(answer(started(pb.Probes(startup=probe())), STARTUP, "g")).ready
    assert probes.verdict(started(pb.Probes(liveness=probe()))).ready
    assert not probes.decide_ready(pb.Probes(liveness=probe()))
    assert probes.decide_ready(pb.Probes(readiness=probe()))


def test_bad_answers_do_not_count_in_the_start_period() -> None:
    """Not towards a restart, and not towards losing what is ready; from its end on they do."""
    asked = pb.Probes(liveness=probe(start_period=10_000), readiness=probe(bad=1, good=2, start_period=10_000))
    health = answer(answer(started(asked), LIVENESS, "bbbbbbbb"), READINESS, "gbbb")
    assert (probes.verdict(health).ready, probes.verdict(health).restart) == (True, "")
    health = answer(health, READINESS, "b", from_ms=10_000)
    assert not probes.verdict(health).ready
    assert probes.verdict(answer(health, LIVENESS, "bbb", from_ms=10_000)).restart


def test_an_adopted_container_stays_ready_until_it_says_otherwise() -> None:
    """It has started, and loses its readiness after as many bad answers as ever."""
    asked = pb.Probes(startup=probe(), readiness=probe())
    health = started(asked, adopted=True, was_ready=True)
    assert probes.open_questions(health) == (READINESS,)
    assert rows(health, READINESS, "bbb") == "++-"
    assert not probes.verdict(started(asked, adopted=True, was_ready=False)).ready


def test_what_was_adopted_together_is_not_asked_together() -> None:
    """An agent that starts finds a thousand containers: they are spread over the interval."""
    asked = pb.Probes(readiness=probe())
    dues = [
        probes.begin(asked, age_ms=5_000, jitter=part / 1000, adopted=True, was_ready=True).counts[READINESS].due
        for part in range(1000)
    ]
    busiest = max(sum(at <= due < at + 100 for due in dues) for at in range(5_000, 6_000, 100))
    assert (min(dues), max(dues), busiest) == (5_000, 5_999, 100)


def test_an_interval_lies_between_askings() -> None:
    """From one asking to the next; an answer that took longer is followed by the next asking at once."""
    health = started(pb.Probes(readiness=probe()))
    assert health.counts[READINESS].due <= probes.FIRST_ASKING_MS
    soon = probes.advance(health, READINESS, BAD, asked_ms=70, now_ms=170)
    late = probes.advance(health, READINESS, BAD, asked_ms=70, now_ms=5_000)
    assert (soon.counts[READINESS].due, late.counts[READINESS].due) == (1_070, 5_000)


def test_the_message_is_the_last_bad_answer() -> None:
    """As long as the container is not ready, and from the first bad answer on."""
    health = started(pb.Probes(readiness=probe(good=2)))
    assert probes.verdict(health).message == ""
    health = probes.advance(health, READINESS, Answer(good=False, message="status 503"), asked_ms=0, now_ms=5)
    assert probes.verdict(health).message == "readiness probe failed: HTTP GET /healthz on port 8080: status 503"
    assert probes.verdict(answer(health, READINESS, "g")).message == probes.verdict(health).message
    assert probes.verdict(answer(health, READINESS, "gg")).message == ""


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (pb.Probe(http=pb.HttpProbe(port="http", path="/a?b")), "HTTP GET /a?b on port http"),
        (pb.Probe(http=pb.HttpProbe(port="443", tls=True)), "HTTPS GET / on port 443"),
        (pb.Probe(tcp=pb.TcpProbe(port="5432")), "TCP connection to port 5432"),
        (pb.Probe(grpc=pb.GrpcProbe(port="9")), "gRPC health on port 9"),
        (pb.Probe(grpc=pb.GrpcProbe(port="9", service="shop.Cart")), "gRPC health of shop.Cart on port 9"),
        (pb.Probe(exec=pb.ExecProbe(command=["test", "-f", "/tmp/a b"])), "command test -f '/tmp/a b'"),
        (pb.Probe(exec=pb.ExecProbe(command=["x" * 100])), f"command {'x' * 79}…"),
    ],
)
def test_probes_are_told_by_what_they_ask(asked: pb.Probe, text: str) -> None:
    """For people, who look for the line in their manifest."""
    assert describe(asked) == text


def test_ports_have_names() -> None:
    """By the name among the container's ports, or by number, whether that is listed or not."""
    container = pb.Container(ports=[pb.Port(name="http", target=8080), pb.Port(target=9)])
    found = [probes.port_number(container, port) for port in ("http", "8080", "77", "https", "²", "70000")]
    assert found == [8080, 8080, 77, None, None, None]


def test_a_question_of_a_newer_version_is_not_asked() -> None:
    """Rather than counted as answered badly."""
    assert probes.questions(pb.Probes(startup=pb.Probe(interval=5), liveness=probe())) == (LIVENESS,)


ANSWERS = st.text("gb", max_size=40)
THRESHOLDS = st.integers(1, 5)


@given(good=THRESHOLDS, bad=THRESHOLDS, answers=ANSWERS)
def test_ready_flips_after_its_threshold_only(good: int, bad: int, answers: str) -> None:
    """The last so many answers before each change were all the same, and no change is late."""
    told = rows(started(pb.Probes(readiness=probe(good=good, bad=bad))), READINESS, answers)
    for number, (before, after) in enumerate(itertools.pairwise("-" + told)):
        seen = answers[: number + 1]
        needed = good if "b" in seen else 1
        turns_ready, turns_unready = seen.endswith("g" * needed), seen.endswith("b" * bad)
        assert after == ("+" if turns_ready else "-" if turns_unready else before)


@given(
    bad=THRESHOLDS,
    startup=st.booleans(),
    answers=st.lists(st.tuples(st.sampled_from(list(Question)), st.booleans()), max_size=60),
)
def test_a_restart_is_wanted_after_a_row_of_bad_answers_only(
    bad: int, answers: list[tuple[Question, bool]], *, startup: bool
) -> None:
    """Whatever is answered in whatever order; and once it is wanted, nothing is asked any more."""
    asked = pb.Probes(liveness=probe(bad=bad), readiness=probe(bad=bad))
    if startup:
        asked.startup.CopyFrom(probe(bad=bad))
    health, row = started(asked), dict.fromkeys(Question, 0)
    for number, (question, good) in enumerate(answers):
        if question not in probes.open_questions(health):
            continue
        health = probes.advance(health, question, GOOD if good else BAD, asked_ms=number, now_ms=number)
        row[question] = 0 if good else row[question] + 1
        wanted = row[LIVENESS] == bad or row[STARTUP] == bad
        assert bool(probes.verdict(health).restart) is wanted
        assert health.counts[question].due == number + INTERVAL
