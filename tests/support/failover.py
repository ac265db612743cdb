"""What befalls control planes, and how long it takes until another leads and reaches every node."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from deploy.local import network, trust
from orchctl import client, errors, who
from protos.orch.v1 import control_pb2, control_pb2_grpc
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

EVERY_S = 0.01
CALL_S = 0.5
LIMIT_S = 60
NO_ANSWER = (grpc.RpcError, errors.OrchctlError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """`leads_s`: from the blow until another leads; `agents_s`: from then until it reaches every node."""

    leader: str
    leads_s: float
    agents_s: float


def leader_of(up: LocalCluster) -> str:
    """Who leads, as whoever answers says; waits until somebody does."""

    def look() -> str:
        with contextlib.suppress(*NO_ANSWER), trust.reach(up.plan) as control:
            return str(control.Version(control_pb2.VersionRequest(), timeout=client.CALL_TIMEOUT_S).leader)
        return ""

    return until(look, what="somebody leads", timeout_s=LIMIT_S)


def measure(up: LocalCluster, strike: Callable[[str], None], *, kills: bool = False) -> Times:
    """Strikes the leader, and takes the times. `kills`: it cannot answer any more, but when it was started again, and
    then it may be the one that leads next.
    """
    old = leader_of(up)
    with contextlib.ExitStack() as stack:
        asked = [name for name in up.plan.instance_names if kills or name != old]
        others = {name: stack.enter_context(dialed(up, name)) for name in asked}
        for stub in others.values():
            stub.Version(control_pb2.VersionRequest(), timeout=client.CALL_TIMEOUT_S)
        strike(old)
        began = time.monotonic()
        new = until(lambda: _leading(others), what=f"somebody leads after {old}", timeout_s=LIMIT_S, every_s=EVERY_S)
        leads = time.monotonic()
        until(lambda: _reaches_all(others[new], up), what="all nodes are back", timeout_s=LIMIT_S, every_s=EVERY_S)
        return Times(leader=new, leads_s=leads - began, agents_s=time.monotonic() - leads)


@contextlib.contextmanager
def dialed(up: LocalCluster, name: str) -> Iterator[control_pb2_grpc.ControlStub]:
    """One instance and no other."""
    server = up.plan.servers[up.plan.instance_names.index(name)]
    with who.known_by(lambda: Path(up.plan.admin_trust)), client.dialed(server) as channel:
        yield control_pb2_grpc.ControlStub(channel)


def _leading(others: dict[str, control_pb2_grpc.ControlStub]) -> str:
    """Who says that they lead; empty while nobody does."""
    for name, stub in others.items():
        with contextlib.suppress(*NO_ANSWER):
            if stub.Version(control_pb2.VersionRequest(), timeout=CALL_S).leader == name:
                return name
    return ""


def _reaches_all(leader: control_pb2_grpc.ControlStub, up: LocalCluster) -> bool:
    with contextlib.suppress(*NO_ANSWER):
        told = [answer.usage for answer in leader.Usage(control_pb2.UsageRequest(), timeout=LIMIT_S)]
        return len(told) == up.plan.nodes and not any(usage.problem for usage in told)
    return False


def kill(up: LocalCluster, name: str) -> None:
    """As a crash would. It is started again a moment later."""
    up.process(name).signal(signal.SIGKILL)


@contextlib.contextmanager
def frozen(up: LocalCluster, name: str) -> Iterator[None]:
    """Every thread of it stands still inside the block."""
    process = up.process(name)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


def freeze(up: LocalCluster, name: str) -> None:
    """Until `frozen` ends."""
    up.process(name).signal(signal.SIGSTOP)


@contextlib.contextmanager
def cut_off(up: LocalCluster, name: str) -> Iterator[None]:
    """The cable of its machine is mended at the end of the block."""
    try:
        yield
    finally:
        _link(up, name, "up")


def cut(up: LocalCluster, name: str) -> None:
    """Pulls the cable of its machine: it, and its member of etcd, reach nobody and hear no goodbye."""
    _link(up, name, "down")


def _link(up: LocalCluster, name: str, state: str) -> None:
    supervisor = Path(f"/proc/{up.process('supervisor').pid}/fd")
    for descriptor in supervisor.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if not str(descriptor.readlink()).startswith("net:"):
                continue
            with descriptor.open() as there, network.inside(there.fileno()):
                if network.exists(network.BRIDGE):
                    network.ip(f"link set {name} {state}")
                    return
    raise AssertionError("the supervisor holds no namespace with the LAN's bridge")
