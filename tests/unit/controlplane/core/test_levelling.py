"""Tasks that are given all at once go where they would go one after another."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import levelling

Node = tuple[int, int, int, int, int]
"""Class, own tasks, load, row and room."""


@st.composite
def in_order(draw: st.DrawFn) -> list[Node]:
    rows = draw(st.permutations(range(draw(st.integers(0, 8)))))
    numbers = st.tuples(st.integers(-1, 1), st.integers(0, 4), st.integers(0, 6))
    return sorted((*draw(numbers), row, draw(st.integers(1, 5))) for row in rows)


def filled(ordered: Sequence[Node], step: int, count: int) -> list[int]:
    columns = np.array(ordered, dtype=np.int64).reshape(-1, 5).T
    levels = levelling.Levels(classes=[columns[0]], own=columns[1], load=columns[2], rows=columns[3], step=step)
    return levelling.fill(levels, columns[4], count).tolist()


@given(in_order(), st.integers(1, 2), st.integers(0, 40))
def test_each_task_goes_to_the_best_node_that_has_room(ordered: list[Node], step: int, count: int) -> None:
    given_to = Counter[int]()

    def score(node: Node) -> tuple[int, int, int, int]:
        kind, own, load, row, _ = node
        return kind, own + given_to[row], load + step * given_to[row], row

    expected = []
    for _ in range(count):
        if able := [node for node in ordered if given_to[node[3]] < node[4]]:
            expected.append(min(able, key=score)[3])
            given_to[expected[-1]] += 1
    assert filled(ordered, step, count) == expected


def test_a_hundred_thousand_tasks_for_one_node_after_others_are_full() -> None:
    """The room of a node is no bound on the work: only what is given is."""
    ordered = [(0, 0, 0, 0, 3), (0, 50, 0, 1, 10**9)]
    chosen = filled(ordered, 1, 100_000)
    assert len(chosen) == 100_000
    assert chosen[:4] == [0, 0, 0, 1]
    assert set(chosen[3:]) == {1}


def test_nobody_takes_anything_where_there_are_no_nodes() -> None:
    assert filled([], 1, 5) == []
