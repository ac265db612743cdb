"""Who may fetch blobs of images from this node: the other nodes of the cluster, and its control planes.

Two rules. TLS has verified that a certificate is of the cluster's root; people have such a certificate, too, so its
role decides. And a node has to be among those that the leader tells of: one that was deleted is let in nowhere,
although its certificate is good for weeks.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from trust import credentials
from trust.core.identity import Malformed, Role


class Members:
    """`peers`: the ids of the other nodes, as they are known now."""

    def __init__(self, peers: Callable[[], Collection[str]]) -> None:
        self._peers = peers

    def refusal(self, said: Mapping[str, Iterable[bytes]]) -> str:
        """Why a call is not answered, of what gRPC says of its connection; empty: it is."""
        try:
            who = credentials.caller(said).identity
        except Malformed as error:
            return str(error)
        if who.role is Role.CONTROLPLANE or (who.role is Role.NODE and who.name in self._peers()):
            return ""
        return f"{who} may not fetch from a node: nodes that this one knows of, and control planes, may"
