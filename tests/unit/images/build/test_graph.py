"""Stages: only what the target needs, in an order that can be built, and every wrong name told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import errors
from images.build import dockerfile, graph


def _needed(text: str, target: str = "", **variables: str) -> list[int]:
    found = graph.needed(dockerfile.parse(text.encode()), target, variables)
    return [each.stage.index for each in found]


DIAMOND = """
FROM x AS root
FROM root AS left
FROM root AS right
FROM y AS unused
FROM scratch AS end
COPY --from=left a b
RUN --mount=from=right,target=/r c
"""


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("FROM a", "", [0]),
        ("FROM a\nFROM b", "", [1]),
        ("FROM a AS x\nFROM x", "", [0, 1]),
        ("FROM a AS x\nFROM X", "", [0, 1]),
        ("FROM a AS x\nFROM b AS y\nFROM x", "", [0, 2]),
        ("FROM a\nFROM b\nCOPY --from=0 c d", "", [0, 1]),
        ("FROM a AS x\nFROM b\nCOPY --from=X c d", "", [0, 1]),
        ("FROM a AS x\nFROM b\nRUN --mount=from=x,target=/y z", "", [0, 1]),
        ("FROM a AS x\nFROM b\nCOPY --from=image c d", "", [1]),
        ("FROM a AS x\nFROM b AS y", "x", [0]),
        ("FROM a AS x\nFROM b AS y", "X", [0]),
        ("FROM a AS x\nFROM b AS y", "1", [1]),
        ("FROM a AS x\nFROM b AS y", "0000001", [1]),
        ("FROM a\nCOPY --from=later c d\nFROM b AS later", "0", [1, 0]),
        ("FROM x AS x", "", [0]),
        ("FROM a AS x\nFROM x AS x", "", [0, 1]),
        ("FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x d e", "", [1, 2]),
        ("FROM a AS x\nONBUILD COPY --from=nowhere c d", "", [0]),
        ("FROM a AS x\nFROM b AS y\nONBUILD COPY --from=x c d", "", [1]),
        ("FROM a AS x\nFROM b AS y\nONBUILD COPY --from=x c d\nFROM y", "", [0, 1, 2]),
        (DIAMOND, "", [0, 1, 2, 4]),
        (DIAMOND, "left", [0, 1]),
        (DIAMOND, "unused", [3]),
    ],
)
def test_stages_come_after_what_they_need(text: str, target: str, expected: list[int]) -> None:
    assert _needed(text, target) == expected


def test_a_stage_says_what_it_stands_on() -> None:
    found = graph.needed(dockerfile.parse(DIAMOND.encode()))
    assert [(each.base, each.is_scratch, each.images, sorted(each.stages)) for each in found] == [
        (None, False, ("x",), []),
        (0, False, (), [0]),
        (0, False, (), [0]),
        (None, True, (), [1, 2]),
    ]
    assert found[-1].sources == {"left": 1, "right": 2}


def test_images_are_named_once_in_their_order() -> None:
    text = b"FROM b\nCOPY --from=c x y\nRUN --mount=from=a,target=/a x\nCOPY --from=c z y"
    assert graph.needed(dockerfile.parse(text))[0].images == ("b", "c", "a")


def test_variables_of_from_name_stages_too() -> None:
    text = "ARG which=one\nFROM a AS one\nFROM b AS two\nFROM $which"
    assert _needed(text, which="two") == [1, 2]
    assert _needed(text, which="a:$which") == [2]


@pytest.mark.parametrize(
    ("text", "target", "complaint"),
    [
        ("FROM a AS build", "biuld", "Dockerfile: there is no stage biuld; did you mean build?"),
        ("FROM a", "x", "Dockerfile: there is no stage x; no stage has a name"),
        ("FROM a", "1", "Dockerfile: there is no stage 1; no stage has a name"),
        ("FROM a AS x\nCOPY --from=x b c", "", "Dockerfile:2: COPY: from=x is this stage itself; name another one"),
        ("FROM a\nCOPY --from=0 b c", "", "Dockerfile:2: COPY: from=0 is this stage itself"),
        ("FROM a\nCOPY --from=7 b c", "", "Dockerfile:2: COPY: from=7: there are 1 stages, which count from 0"),
        ("FROM a\nRUN --mount=from=1,target=/x b", "", "Dockerfile:2: RUN: from=1: there are 1 stages"),
        (
            "FROM a AS x\nCOPY --from=y b c\nFROM a AS y\nCOPY --from=z b c\nFROM a AS z\nCOPY --from=y b c",
            "x",
            "Dockerfile:3: FROM: stages need each other: y needs z needs y; divide one of them in two",
        ),
        ("FROM $none", "", "Dockerfile:1: FROM: $none comes to nothing; give its ARG before the first FROM a default"),
    ],
)
def test_a_wrong_name_is_told(text: str, target: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        _needed(text, target)
    assert str(raised.value).startswith(complaint)


@given(st.lists(st.lists(st.integers(min_value=0, max_value=9), max_size=3), min_size=1, max_size=8))
def test_any_set_of_stages_is_ordered_or_refused(sources: list[list[int]]) -> None:
    """A stage is there once, after all that it needs, and nothing is there that nobody needs."""
    text = "".join(f"FROM a\n{''.join(f'COPY --from={source} b c{chr(10)}' for source in each)}" for each in sources)
    parsed = dockerfile.parse(text.encode())
    try:
        found = graph.needed(parsed)
    except errors.InvalidDockerfile as error:
        told = str(error)
        assert "itself" in told or "there are" in told or "need each other" in told
        return
    order = [each.stage.index for each in found]
    assert order[-1] == len(sources) - 1
    assert len(set(order)) == len(order)
    assert all(set(sources[index]) <= set(order[:place]) for place, index in enumerate(order))
    assert all(any(index in sources[user] for user in order) for index in order[:-1])
