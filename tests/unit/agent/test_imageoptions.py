"""What an agent is told of images on its command line is refused when it cannot be meant."""

import argparse

import pytest

from agent import imageoptions
from agent.core import sharing
from controlplane.core import blob_sources


def limits(*arguments: str) -> sharing.Limits:
    parser = argparse.ArgumentParser()
    imageoptions.add(parser)
    return imageoptions.sharing_of(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--share-rate", "1Mi"], "too little for 3 transfers at a time"),
        (["--share-rate", "511Ki", "--share-transfers", "1"], "512Ki at least"),
        (["--share-transfers", "0"], "--blob-port 0 gives nothing"),
    ],
    ids=" ".join,
)
def test_what_would_make_every_receiver_give_up_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit, match=told):
        limits(*arguments)


def test_what_goes_through_is_taken() -> None:
    assert limits() == sharing.Limits()
    assert limits("--share-rate", "512Ki", "--share-transfers", "1") == sharing.Limits(transfers=1, bytes_per_s=524_288)
    slowest_each = sharing.least_rate(3) // 3
    assert not sharing.is_too_slow(int(slowest_each * 6 - 1024 * 1024), 6), "a chunk may be on its way"


def test_a_node_gives_to_as_many_as_the_leader_sends() -> None:
    """More are never sent, and fewer are sent in vain."""
    assert sharing.TRANSFERS == blob_sources.FROM_NODE
