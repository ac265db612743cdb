"""Maps that are kept while they change."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from controlplane.store import persistent

# One edit: a key, and the value to set or None to remove it. Or a freeze.
EDITS = st.lists(st.one_of(st.just("freeze"), st.tuples(st.integers(0, 400), st.one_of(st.none(), st.integers()))))


@given(EDITS)
def test_every_frozen_map_stays_what_it_was_and_equals_a_dictionary(edits: list[object]) -> None:
    builder: persistent.Builder[int] = persistent.Builder()
    expected: dict[str, int] = {}
    kept: list[tuple[persistent.Map[int], dict[str, int]]] = []
    for edit in edits:
        match edit:
            case (number, None):
                if f"{number}" in expected:
                    del expected[f"{number}"]
                    builder.remove(f"{number}")
            case (number, int(value)):
                expected[f"{number}"] = value
                builder.set(f"{number}", value)
            case _:
                kept.append((builder.freeze(), dict(expected)))
        assert len(builder.freeze()) == len(expected)
    kept.append((builder.freeze(), expected))
    for frozen, wanted in kept:
        assert frozen == wanted
        assert all(frozen[key] == value for key, value in wanted.items())
        assert dict(frozen.items()) == wanted
        assert sorted(frozen.values()) == sorted(wanted.values())
        assert list(frozen.values()) == [frozen[key] for key in frozen]


def test_a_map_grows_past_its_shards_and_earlier_maps_do_not_notice() -> None:
    builder: persistent.Builder[int] = persistent.Builder()
    frozen = []
    for number in range(5000):
        if number % 1000 == 0:
            frozen.append(builder.freeze())
        builder.set(f"/orch/task/default/{number}", number)
    assert [len(each) for each in frozen] == [0, 1000, 2000, 3000, 4000]
    assert all(set(each.values()) == set(range(len(each))) for each in frozen)


def test_freezing_without_an_edit_gives_the_same_map() -> None:
    builder: persistent.Builder[int] = persistent.Builder()
    builder.set("a", 1)
    first = builder.freeze()
    assert builder.freeze() is first
    builder.set("b", 2)
    assert builder.freeze() is not first
    assert persistent.Builder(first).freeze() is first


def test_the_order_of_iteration_is_the_same_in_every_process() -> None:
    """Python's own hashes of strings differ from process to process; a simulation must not."""
    program = (
        "from controlplane.store import persistent\n"
        "builder = persistent.Builder()\n"
        "for i in range(500): builder.set(f'key-{i}', i)\n"
        "print(list(builder.freeze()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
