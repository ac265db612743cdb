"""What nodes have of the images, in runs in which they have anything: who prepares an image has it from then on,
whatever becomes of its agent, and makes room once in a while.
"""

import random
from collections.abc import Iterable

from agent.core.container import PreparedImage
from agent.holdings import Holdings
from controlplane.core import locality
from controlplane.dispatcher.dispatcher import Dispatcher
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.violation import Violation
from tests.support import fake_agent

BASE = pb.ImageBlob(digest=fake_agent.digest(9_000), size=2 * locality.LARGE_BYTES)
"""A layer that all images share."""
_TOPS_FROM = 9_001


def layers(number: int) -> list[pb.ImageBlob]:
    """What the image of a number consists of."""
    return [BASE, pb.ImageBlob(digest=fake_agent.digest(_TOPS_FROM + number), size=2 * locality.SMALL_BYTES)]


class KeptImages(fake_agent.FakeImages):
    """Notes what was prepared. Of what has been pushed in the run nobody tells what it consists of."""

    def __init__(self, machine: fake_agent.FakeMachine, holdings: Holdings) -> None:
        super().__init__(machine)
        self._holdings = holdings

    async def prepare(
        self,
        reference: str,
        digest: str,
        policy: "pb.ImagePullPolicy.ValueType" = pb.IMAGE_PULL_POLICY_MISSING,
    ) -> PreparedImage:
        image = await super().prepare(reference, digest, policy)
        parts = [
            one.digest for number in range(3) if fake_agent.digest(number) == image.digest for one in layers(number)
        ]
        self._holdings.add([image.digest, *parts])
        return image


def make_room(holdings: Holdings, chance: random.Random) -> None:
    """Some of what a node has goes."""
    holdings.replace(one for one in sorted(holdings.held) if chance.random() < 0.5)


def check(dispatchers: Iterable[Dispatcher], node_ids: Iterable[str]) -> None:
    """Whoever leads counts on nobody who is not there."""
    everybody = list(node_ids)
    for dispatcher in dispatchers:
        holders = dispatcher.holders()
        numbers = holders.numbers(everybody)
        for node_id, number in zip(everybody, numbers.tolist(), strict=True):
            if number >= 0 and dispatcher.sessions.get(node_id) is None:
                raise Violation(
                    "who is counted on is there", f"{node_id} has no session, and counts as one with images"
                )
