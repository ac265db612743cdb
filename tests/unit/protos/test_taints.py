"""Taints as they are written on a command line."""

import pytest

from protos import taints
from protos.orch.v1 import objects_pb2 as pb


@pytest.mark.parametrize(
    ("taint", "expected"),
    [
        (pb.Taint(key="gpu"), "gpu:no-schedule"),
        (pb.Taint(key="gpu", value="a100"), "gpu=a100:no-schedule"),
        (pb.Taint(key="old", effect=pb.TAINT_EFFECT_PREFER_NO_SCHEDULE), "old:prefer-no-schedule"),
        (pb.Taint(key="x/y", value="1", effect=pb.TAINT_EFFECT_NO_EXECUTE), "x/y=1:no-execute"),
    ],
)
def test_a_taint_in_words(taint: pb.Taint, expected: str) -> None:
    """One that names no effect keeps new tasks away."""
    assert taints.words(taint) == expected
