"""The nodes as all of them are told of each other: worked out once for everybody, and the same value until it differs.

The rule: a session compares by identity. What changes in the record of a node but is nobody else's affair, such as how
far a drain has come, leaves the value as it is, and thousands of sessions have nothing to do.
"""

from collections.abc import Mapping

from controlplane.core import assignments
from controlplane.core.trust.believed import Believed
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb


class Peers:
    """`settings`: what is the same for all nodes."""

    def __init__(self, settings: wire.NodeNetwork, believed: Believed | None = None) -> None:
        self._given = settings
        self._known: Mapping[str, pb.Node] = {}
        self._found: assignments.Peers = ()
        self.settings = settings
        self._believed = Believed()
        self.believe(believed or Believed())

    def believe(self, believed: Believed) -> None:
        """Others are members now."""
        self._known = {}
        self._believed = believed
        self.settings = wire.NodeNetwork(instances=believed.instances)
        self.settings.MergeFrom(self._given)

    def of(self, known: Mapping[str, pb.Node]) -> assignments.Peers:
        """Those that others can reach, by id. `known`: of one snapshot, where equal things are identical."""
        if known is not self._known:
            self._known = known
            found = assignments.peers_of(known.values(), self._given, self._believed.nodes)
            if found != self._found:
                self._found = found
        return self._found
