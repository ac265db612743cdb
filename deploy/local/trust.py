"""Who is trusted in a local cluster: it is founded with its nodes, so that nobody has to join it.

The rule: `reach` is how anything here talks to the control plane, as the cluster's admin, whose certificate is in the
cluster's own folder. The person's context names the same folder, and both go with the cluster.
"""

import contextlib
import getpass
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.local import errors, plan
from orchctl import client, servers, who
from protos.orch.v1 import control_pb2_grpc, trust_pb2_grpc
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import identity
from trust.core.identity import Role
from trust.folder import Folder, NotTrusted

if TYPE_CHECKING:
    import grpc

    from controlplane.trust.founding import Node
    from protos.orch.v1.control_pb2_grpc import ControlStub

_TOKEN_MS: Final = 60_000
NOBODY: Final = "local"
"""What the person who started it is called in its records when their user's name is none for a member."""


def found(the_plan: plan.Plan) -> None:
    """Make the certificates of everybody, below the cluster's folder. LocalError when they cannot be made."""
    from controlplane.trust import founding  # whoever only asks how the cluster is does not pay for it

    wanted = founding.Plan(
        instances=[
            founding.Instance(name=name, folder=Folder(Path(the_plan.trust(name))), member=the_plan.member(name))
            for name in the_plan.instance_names
        ],
        admin=person(),
        admins=Folder(Path(the_plan.admin_trust)),
        nodes=[_node(the_plan, name) for name in the_plan.node_names],
    )
    try:
        founding.found(wanted, time.time_ns() // 1_000_000)
    except (NotTrusted, errands.NotMade) as error:
        raise errors.LocalError(f"the cluster's certificates cannot be made: {error}") from error


def person() -> str:
    """What whoever starts a cluster is called in its records: their user's name, where that is a member's."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container for example
        return NOBODY
    return user if identity.NAME.fullmatch(user) else NOBODY


def _node(the_plan: plan.Plan, name: str) -> "Node":
    """Its id is what its agent will find in its folder."""
    from agent.adapters.disk import FileDisk
    from agent.adapters.layout import Layout
    from controlplane.trust import founding

    node_id = FileDisk(Layout(the_plan.node_folder(name), None)).node_id()
    return founding.Node(id=node_id, name=name, folder=Folder(Path(the_plan.trust(name))))


def admit(the_plan: plan.Plan, name: str) -> None:
    """Let a machine in whose node was deleted: it joins anew, with a token. LocalError when it cannot."""
    from trust import joining

    node = _node(the_plan, name)
    with _dialed(the_plan) as channel:
        stub = trust_pb2_grpc.TrustStub(channel)
        known = stub.ListMembers(pb.ListMembersRequest(), timeout=client.CALL_TIMEOUT_S).members
        if identity.member(Role.NODE, node.id) in {one.name for one in known}:
            return
        asked = pb.CreateTokenRequest(role=Role.NODE, uses=1, lifetime=_TOKEN_MS)
        made = stub.CreateToken(asked, timeout=client.CALL_TIMEOUT_S)
    shutil.rmtree(node.folder.path, ignore_errors=True)
    try:
        joining.join(the_plan.door, made.token, joining.Wish(name=node.id, node_name=name), node.folder)
    except (joining.NotJoined, NotTrusted) as error:
        raise errors.LocalError(f"{name} cannot join again: {error}") from error


@contextlib.contextmanager
def reach(the_plan: plan.Plan) -> Iterator["ControlStub"]:
    """The cluster's control plane, for blocking calls."""
    with _dialed(the_plan) as channel:
        yield control_pb2_grpc.ControlStub(channel)


@contextlib.contextmanager
def _dialed(the_plan: plan.Plan) -> Iterator["grpc.Channel"]:
    everybody = servers.known(lambda: the_plan.servers, lambda _: None)
    with who.known_by(lambda: Path(the_plan.admin_trust)), everybody, client.dialed(the_plan.server) as channel:
        yield channel
