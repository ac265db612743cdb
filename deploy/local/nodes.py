"""What the control plane says of its nodes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from deploy.local import errors, trust
from deploy.local.plan import Plan
from orchctl import client
from orchctl import errors as orchctl_errors
from protos.orch.v1 import control_pb2, objects_pb2

_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`state` as people write it: `ready`; `subnet` and `subnet6` are the ranges of its tasks' addresses."""

    id: str
    name: str
    state: str
    address: str
    subnet: str
    subnet6: str = ""

    @property
    def usable(self) -> bool:
        return self.state == "ready" and bool(self.subnet or self.subnet6)


def ask(plan: Plan) -> list[Node]:
    """All nodes, by name. OrchctlError when nobody answers."""
    with trust.reach(plan) as control:
        answer = control.List(control_pb2.ListRequest(kind="node"), timeout=client.CALL_TIMEOUT_S)
    return sorted((_read(one.node) for one in answer.objects), key=lambda node: (len(node.name), node.name))


def wait_until_ready(plan: Plan, names: set[str], *, timeout_s: float, still_up: Callable[[], bool]) -> list[Node]:
    """Those nodes, once each is ready. LocalError with what was seen last when that takes too long, or cannot be."""
    deadline = time.monotonic() + timeout_s
    seen: dict[str, Node] = {}
    problem = ""
    while (left_s := deadline - time.monotonic()) > 0 and still_up():
        try:
            for node in _watch(plan, left_s):
                seen[node.name] = node
                if all(name in seen and seen[name].usable for name in names):
                    return [seen[name] for name in sorted(names, key=lambda name: (len(name), name))]
        except orchctl_errors.OrchctlError as error:
            problem = str(error)  # the control plane is still starting
            time.sleep(_PAUSE_S)
    missing = ", ".join(f"{name} {seen[name].state if name in seen else 'unseen'}" for name in sorted(names))
    if left_s > 0:
        raise errors.LocalError(f"the cluster went down before its nodes were ready: {missing}", detail=problem)
    raise errors.LocalError(f"the nodes are not ready after {timeout_s:.0f} s: {missing}", detail=problem)


def wait_until_missed(plan: Plan, name: str, *, timeout_s: float) -> None:
    """Until the control plane does not call that node ready. LocalError when it goes on doing so."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(node.name == name and node.state == "ready" for node in ask(plan)):
            return
        time.sleep(_PAUSE_S)
    raise errors.LocalError(f"{name} is off, but the control plane still calls it ready after {timeout_s:.0f} s")


def _watch(plan: Plan, timeout_s: float) -> Iterator[Node]:
    request = control_pb2.WatchRequest(selections=[control_pb2.ListRequest(kind="node")])
    with trust.reach(plan) as control:
        for response in control.Watch(request, timeout=timeout_s):
            if response.HasField("changed"):
                yield _read(response.changed.node)


def _read(node: objects_pb2.Node) -> Node:
    state = objects_pb2.NodeState.Name(node.status.state).removeprefix("NODE_STATE_").lower()
    return Node(
        id=node.meta.id,
        name=node.meta.name,
        state=state,
        address=node.status.description.address,
        subnet=node.status.subnet,
        subnet6=node.status.subnet6,
    )
