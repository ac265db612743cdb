"""How figures are summed up."""

import contextlib
import dataclasses
import os
import sys
import types

import pytest

from tests.bench import measure, run


def case(ours: list[float], peer: list[float] | None, *, mark: float | None = None) -> measure.Case:
    theirs = iter(peer or [])
    mine = iter(ours)
    return measure.Case(
        name="a.case",
        unit="s",
        ours=lambda: next(mine),
        peer=(lambda: next(theirs)) if peer else None,
        peer_name="peer",
        rounds=len(ours),
        mark=mark,
    )


def test_a_ratio_is_one_of_medians() -> None:
    """One slow round does not change the picture: 2 over 4."""
    result = measure.run(case([1.0, 2.0, 90.0], [4.0, 3.0, 70.0]))
    assert result.ratio == 0.5
    assert result.row() == {
        "case": "a.case", "ours": 2.0, "peer": 4.0, "peer_name": "peer", "ratio": 0.5, "unit": "s", "n": 3,
    }  # fmt: skip


def test_a_missing_peer_is_null() -> None:
    """And the table says so."""
    result = measure.run(case([1.0], None))
    assert (result.row()["peer"], result.row()["ratio"]) == (None, None)
    assert "absent" in measure.table([result])


def test_the_table_tells_whether_a_mark_is_met() -> None:
    """By the median."""
    assert "≤ 2 ✓" in measure.table([measure.run(case([2.0], [1.0], mark=2.0))])
    assert "≤ 2 ✗" in measure.table([measure.run(case([2.1], [1.0], mark=2.0))])


def bench(monkeypatch: pytest.MonkeyPatch, **marks: float) -> int:
    """The exit code when each of these cases takes two seconds."""
    made = [dataclasses.replace(case([2.0], None, mark=mark), name=name) for name, mark in marks.items()]
    subject = types.SimpleNamespace(cases=lambda: contextlib.nullcontext(made))
    monkeypatch.setitem(sys.modules, "tests.bench.names", subject)
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "names"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return run.main()


def test_a_missed_mark_fails_the_run_which_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end, when all are measured."""
    assert bench(monkeypatch, quick=2.0) == 0
    assert "missed" not in capsys.readouterr().err
    assert bench(monkeypatch, slow=1.9, quick=2.0, sluggish=1.0) == 1
    assert capsys.readouterr().err.endswith("bench: 2 of 3 cases missed their marks: slow, sluggish\n")


def test_a_ratio_over_its_mark_is_missed_and_one_without_a_peer_is_not() -> None:
    result = measure.run(dataclasses.replace(case([2.0], [1.0]), ratio_mark=1.5))
    assert result.missed
    assert not measure.run(dataclasses.replace(case([2.0], None), ratio_mark=1.5)).missed


def test_ours_and_the_peers_take_turns() -> None:
    """So that both see the same machine."""
    order: list[str] = []

    def note(name: str) -> float:
        order.append(name)
        return 1.0

    measure.run(
        measure.Case(name="c", unit="s", ours=lambda: note("ours"), peer=lambda: note("peer"), peer_name="p", rounds=2)
    )
    assert order == ["ours", "peer", "ours", "peer"]
