"""A packet out of its time does not end its connection: it is not answered in the name of somebody else."""

import pytest

from protos.orch.v1 import objects_pb2 as pb
from tests.support import strays
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import Lab, LabNode
from tests.support.places import VIRTUAL

pytestmark = pytest.mark.root

PORT, PUBLISHED = 90, 9090
KEPT = pb.Port(target=PORT, protocol=pb.PROTOCOL_TCP, published=PUBLISHED, mode=pb.PUBLISH_MODE_INGRESS)


@pytest.mark.parametrize("way", ["a virtual address", "a port of the task's node", "a port of another node"])
@pytest.mark.parametrize("end", ["client", "server"])
def test_a_stray_packet_ends_no_connection(lab: Lab, one: LabNode, two: LabNode, way: str, end: str) -> None:
    """The kernel translates only what it takes for a part of the connection. The rest seems to come from, or to go to,
    an address that knows nothing of it, and would be answered with a reset.
    """
    web, task = lab.task(two, "web-1", 2), lab.task(one, "client-1", 9, "client")
    lab.serve(
        service("web", endpoint("10.112.2.2"), ports=(KEPT,)), service("client", endpoint("10.112.1.9"), number=2)
    )
    client, host, port = {
        "a virtual address": (task, VIRTUAL, PORT),
        "a port of the task's node": (lab.outside, two.address, PUBLISHED),
        "a port of another node": (lab.outside, one.address, PUBLISHED),
    }[way]
    with web.open() as listening, client.open() as asking:
        listening.bind(("0.0.0.0", PORT))
        listening.listen()
        asking.connect((host, port))
        answering, _ = listening.accept()
        with answering:
            answering.settimeout(2)
            for _ in range(5):
                strays.send(client, asking) if end == "client" else strays.send(web, answering)
                asking.sendall(b"?")
                assert answering.recv(1) == b"?"
                answering.sendall(b"!")
                assert asking.recv(1) == b"!"
