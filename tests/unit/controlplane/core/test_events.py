"""How events are counted and kept."""

import dataclasses
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import events, happenings
from controlplane.core.happenings import Happening
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

NOW_MS = 1_700_000_000_000
LIMITS = events.Limits(per_namespace=5, in_all=8, slack=2, age_ms=1_000_000)


def happening(message: str = "failed", *, name: str = "web-1-x", namespace: str = "default") -> Happening:
    about = pb.EventObject(kind="task", namespace=namespace, name=name, id=name, service="web")
    return Happening(about=about, reason="Failed", message=message, warning=True)


def stored(told: Sequence[Happening], known: dict[str, pb.Event], now_ms: int = NOW_MS) -> dict[str, pb.Event]:
    """What is there after these were recorded."""
    result = dict(known)
    for write in events.record([dataclasses.replace(one, at_ms=now_ms) for one in told], known):
        assert isinstance(write.value, pb.Event)
        result[write.key] = write.value
    return result


def test_a_first_event_is_seen_once() -> None:
    (event,) = stored([happening()], {}).values()
    assert (event.status.count, event.status.first_seen, event.status.last_seen) == (1, NOW_MS, NOW_MS)
    assert event.status.type == pb.EVENT_TYPE_WARNING
    assert event.meta.namespace == "default"
    assert event.meta.id == event.meta.name
    assert event.meta.version == 0, "it must not be there yet"


def test_equal_events_are_counted_within_the_window_and_then_anew() -> None:
    known = stored([happening(), happening()], {})
    known = stored([happening()], known, NOW_MS + events.WINDOW_MS)
    (event,) = known.values()
    assert (event.status.count, event.status.first_seen) == (3, NOW_MS)
    (event,) = stored([happening()], known, NOW_MS + 2 * events.WINDOW_MS + 1).values()
    assert (event.status.count, event.status.first_seen) == (1, NOW_MS + 2 * events.WINDOW_MS + 1)


def test_what_differs_is_not_counted_together() -> None:
    assert len(stored([happening(), happening("other"), happening(name="web-2-x")], {})) == 3


def test_what_was_known_is_not_touched() -> None:
    known = stored([happening()], {})
    before = {key: value.SerializeToString() for key, value in known.items()}
    events.record([happening()], known)
    assert {key: value.SerializeToString() for key, value in known.items()} == before


def test_a_clock_that_is_behind_turns_nothing_back() -> None:
    (event,) = stored([happening()], stored([happening()], {}), NOW_MS - 5_000).values()
    assert event.status.last_seen == NOW_MS


def test_events_about_the_cluster_have_the_place_of_its_objects() -> None:
    about = pb.EventObject(kind="node", name="n1", id="id1")
    (event,) = stored([Happening(about=about, reason="Down", message="lost")], {}).values()
    assert kinds.key(event).startswith("/orch/event/_/n1.")


def test_what_a_person_does_has_an_id_of_its_own() -> None:
    service = pb.Service(meta=pb.Meta(id="s1", name="web", namespace="shop"))
    made = [
        events.of_person(service, "Scaled", "1 → 2", actor="ann@laptop", suffix=suffix, now_ms=NOW_MS)
        for suffix in ("a", "b")
    ]
    assert [one.meta.id for one in made] == ["web.a", "web.b"]
    assert {one.status.actor for one in made} == {"ann@laptop"}


def test_nothing_goes_before_the_slack_is_used_up() -> None:
    known: dict[str, pb.Event] = {}
    for number in range(7):
        known = stored([happening(str(number))], known, NOW_MS + number)
    assert events.trim(known, LIMITS, NOW_MS) == ()
    known = stored([happening("last")], known, NOW_MS + 8)
    gone = {one.value.status.message for one in events.trim(known, LIMITS, NOW_MS) if isinstance(one.value, pb.Event)}
    assert gone == {"0", "1", "2"}


def test_old_ones_go_whatever_their_number() -> None:
    known = stored([happening()], {})
    assert len(events.trim(known, LIMITS, NOW_MS + LIMITS.age_ms + 1)) == 1


DRAWN = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1_900, 3_000)), min_size=5, max_size=40)
"""Namespaces, and the seconds at which the last was seen; a few are too old at second 3,000."""


@settings(deadline=None, max_examples=300)
@given(DRAWN)
def test_what_is_too_old_goes_and_then_the_oldest_of_too_many(drawn: list[tuple[str, int]]) -> None:
    known: dict[str, pb.Event] = {}
    for number, (namespace, second) in enumerate(drawn):
        known |= stored([happening(f"{number:02}", namespace=namespace)], {}, NOW_MS + second * 1_000)
    now_ms = NOW_MS + 3_000_000

    def seen(key: str) -> tuple[int, str]:
        return known[key].status.last_seen, key

    left = sorted((key for key in known if now_ms - known[key].status.last_seen <= LIMITS.age_ms), key=seen)
    for namespace in "abcd":
        mine = [key for key in left if known[key].meta.namespace == namespace]
        if len(mine) > LIMITS.per_namespace + LIMITS.slack:
            left = [key for key in left if key not in mine[: -LIMITS.per_namespace]]
    if len(left) > LIMITS.in_all + LIMITS.slack:
        left = left[-LIMITS.in_all :]
    gone = [one.key for one in events.trim(known, LIMITS, now_ms)]
    assert gone == sorted(known.keys() - left)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_no_happening_is_lost_in_the_counts(messages: list[str]) -> None:
    known: dict[str, pb.Event] = {}
    for number in range(0, len(messages), 7):
        known = stored([happening(one) for one in messages[number : number + 7]], known)
    assert {event.status.message: event.status.count for event in known.values()} == {
        one: messages.count(one) for one in messages
    }


def test_the_name_of_an_object_is_that_of_its_task() -> None:
    assert happenings.about(pb.Node(meta=pb.Meta(id="i", name="n1"))) == pb.EventObject(kind="node", name="n1", id="i")
