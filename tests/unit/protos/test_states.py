"""The theorems of the task's transition table."""

import itertools

import pytest

from protos import states
from protos.orch.v1 import objects_pb2 as pb

ALL = [number for number in pb.TaskState.values() if number != pb.TASK_STATE_UNSPECIFIED]


def reachable(start: states.State) -> set[states.State]:
    found, new = {start}, {start}
    while new:
        new = {after for before, after in states.TRANSITIONS if before in new} - found
        found |= new
    return found


def test_edges_only_rise() -> None:
    for before, after in states.TRANSITIONS:
        assert before < after, f"{states.word(before)} → {states.word(after)}"


@pytest.mark.parametrize("edge", states.TRANSITIONS, ids=lambda edge: "-".join(map(states.word, edge)))
def test_an_edge_has_one_owner(edge: tuple[states.State, states.State]) -> None:
    assert [owner for owner in states.Owner if states.allowed(*edge, owner)] == [states.TRANSITIONS[edge]]


def test_there_is_no_way_out_of_a_terminal_state() -> None:
    ends = {state for state in ALL if not any(before == state for before, _ in states.TRANSITIONS)}
    assert ends == states.TERMINAL
    assert {state for state in ALL if states.is_terminal(state)} == states.TERMINAL


def test_every_state_is_reached_from_new_and_comes_to_an_end() -> None:
    assert reachable(states.NEW) == set(ALL)
    for state in ALL:
        assert reachable(state) & states.TERMINAL


def test_every_state_that_a_node_holds_may_be_lost_with_it() -> None:
    """Nothing stays RUNNING for ever on a node that is gone."""
    for state in (states.ASSIGNED, *states.PATH):
        assert states.allowed(state, states.ORPHANED, states.Owner.NODES)


def test_only_the_scheduler_gives_a_task_to_a_node() -> None:
    into = {owner for (_, after), owner in states.TRANSITIONS.items() if after == states.ASSIGNED}
    assert into == {states.Owner.SCHEDULER}


def test_an_agent_reports_only_what_was_assigned() -> None:
    """Before ASSIGNED no agent knows of the task."""
    for before, after in itertools.product([states.NEW, states.PENDING], ALL):
        assert before == after or not states.allowed(before, after, states.Owner.AGENT)


def test_staying_is_always_allowed() -> None:
    for state, owner in itertools.product(ALL, states.Owner):
        states.check(state, state, owner)


def test_a_forbidden_step_names_who_and_what() -> None:
    with pytest.raises(AssertionError, match="agent that holds the node's session may not move a task from NEW to RUN"):
        states.check(states.NEW, states.RUNNING, states.Owner.AGENT)


def test_the_drawing_has_every_edge() -> None:
    """The table in the documentation is drawn from the one that is executed."""
    drawn = set()
    for line in states.drawing().splitlines()[2:]:
        before, afters, owner = (cell.strip() for cell in line.strip("|").split("|"))
        drawn |= {(before, after, owner) for after in afters.split(", ")}
    assert drawn == {
        (states.word(before), states.word(after), owner.value) for (before, after), owner in states.TRANSITIONS.items()
    }
