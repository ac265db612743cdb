"""The exchange of the store's root, with real members of etcd, by the command that people type."""

import asyncio
import contextlib
import itertools
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from controlplane.store import errors
from controlplane.store.etcd import EtcdStore
from controlplane.trust.standing import store_credentials
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import api_world, machines_of_control
from tests.support.machines_of_control import Estate, Machine, members
from tests.support.waiting import until
from trust.core import certificate
from trust.folder import Folder

pytestmark = pytest.mark.etcd

SHORT_S = 10.0
"""For a write while members are started anew one by one, on a machine with much else to do."""
PAUSE_S = 20.0
"""The same where there is one member alone: it starts, and then the leader's lease lapses, which it could not renew."""
OLD, OLD_ROOTS = "old-store.pem", "old-store-roots.pem"


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with machines_of_control.estate(tmp_path) as made:
        yield made


@dataclass(slots=True)
class Traffic:
    """Somebody who writes and reads all the time, at whichever control plane answers. `longest_s`: for one write, with
    all that was tried until it was acknowledged.
    """

    estate: Estate
    machines: Sequence[Machine]
    written: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    refusal: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        turns = itertools.cycle(self.machines)
        for number in itertools.count():
            if self._stop.is_set():
                return
            name, began = f"s{number}", time.monotonic()
            while not self._write(next(turns), name):
                if time.monotonic() - began > machines_of_control.START_S:
                    self.failures.append(f"{name} was not written: {self.refusal}")
                    return
                self._stop.wait(0.05)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.written.append(name)
            self._stop.wait(0.02)

    def _write(self, machine: Machine, name: str) -> bool:
        """Repeated until it is acknowledged: to put the same over itself is no change."""
        service = api_world.service(name, replicas=0)
        service.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
        request = pb.ApplyRequest(objects=[objects_pb2.Object(service=service)], force=True)
        try:
            with machine.stub(self.estate.admin) as stub:
                stub.Apply(request, timeout=3)
        except grpc.RpcError as error:
            self.refusal = f"{machine.name}: {error}"
            return False
        return True

    @contextlib.contextmanager
    def going_on(self) -> Iterator["Traffic"]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            until(lambda: len(self.written) > 3 or self.failures, what="it writes", timeout_s=60)
            assert not self.failures
            yield self
        finally:
            self._stop.set()
            thread.join(machines_of_control.START_S + 5)

    def check(self) -> None:
        """What was acknowledged is there, at each of them."""
        assert not self.failures
        for machine in self.machines:
            with machine.stub(self.estate.admin) as stub:
                answer = stub.List(pb.ListRequest(kind="service"), timeout=10)
            there = {one.service.meta.name for one in answer.objects}
            assert not set(self.written) - there


def grown(estate: Estate, count: int) -> Sequence[Machine]:
    """A cluster of so many control planes, each with a member of etcd that counts."""
    first, *others = (estate.machine(f"cp{number}") for number in range(1, count + 1))
    tokens = estate.found(first)
    first.start()
    estate.until_leads(first)
    for joiner in others:
        estate.join(joiner, first, tokens["controlplane"])
        joiner.start()
        until(lambda: (joiner.name, False) in members(first), what=f"{joiner.name} counts", timeout_s=40)  # noqa: B023
    machines = (first, *others)
    estate.until_leads(*machines)
    for machine in machines:
        keep_old(machine)
    return machines


def keep_old(machine: Machine) -> None:
    """What it has of the store's root as it is now, for later."""
    for kept, name in ((OLD, "store.pem"), (OLD_ROOTS, "store-roots.pem")):
        (machine.folder / kept).write_bytes((machine.trust / name).read_bytes())


def lets_in(machine: Machine, identity: Path, roots: Path) -> bool:
    """Whether the member on a machine answers who shows this, and is believed itself."""
    context = ssl.create_default_context(cafile=roots)
    context.load_cert_chain(identity)
    try:
        with urllib.request.urlopen(f"https://{machine.host}:2379/health", timeout=5, context=context) as answer:
            return bool(answer.status == 200)
    except (ssl.SSLError, ConnectionError, urllib.error.URLError):
        return False


def issuer(pem: bytes) -> object:
    return certificate.read(pem[pem.index(b"-----BEGIN CERTIFICATE") :]).issuer


def check_exchanged(machines: Sequence[Machine], old: Machine) -> None:
    """Files hold one root, which is another; every member lets in who has a certificate of it, and nobody else."""
    (roots,) = {(machine.trust / "store-roots.pem").read_bytes() for machine in machines}
    new = certificate.read(roots).subject
    assert len(certificate.split(roots)) == 1
    for machine in machines:
        assert (old.folder / OLD_ROOTS).read_bytes() != roots
        assert (machine.trust / "etcd" / "roots.pem").read_bytes() == roots
        assert issuer((machine.trust / "store.pem").read_bytes()) == new
        assert issuer((machine.trust / "etcd" / "cert.pem").read_bytes()) == new
        assert lets_in(machine, machine.trust / "store.pem", machine.trust / "store-roots.pem")
        assert not lets_in(machine, old.folder / OLD, machine.trust / "store-roots.pem")


class Lease:
    """A lease in the store that a thread keeps alive, as leaders do with theirs, at whichever member answers."""

    TTL_S = 10.0

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._machines = machines
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._keep()), daemon=True)
        self.renewals = 0
        self.failure = ""

    async def _keep(self) -> None:
        folder, addresses = Folder(self._machines[0].trust), [f"{one.host}:2379" for one in self._machines]
        store = EtcdStore(addresses, credentials=store_credentials(folder))
        lease = await store.grant_lease(self.TTL_S)
        while not self._stop.is_set() and not self.failure:
            try:
                await store.keep_alive(lease)
                self.renewals += 1
            except errors.LeaseExpired as error:
                self.failure = str(error)
            except errors.Unavailable:
                continue  # as long as it lasts
            await asyncio.sleep(0.5)
            await store.renew(store_credentials(folder))
        await store.close()

    @contextlib.contextmanager
    def kept(self) -> Iterator["Lease"]:
        self._thread.start()
        try:
            until(lambda: self.renewals, what="it is kept", timeout_s=20)
            yield self
        finally:
            self._stop.set()
            self._thread.join(20)


def test_three_control_planes_exchange_it_while_reads_and_writes_go_on(estate: Estate) -> None:
    """Each member of etcd is started anew once; nothing that was acknowledged is lost, no write waits for long, and
    leases live on.
    """
    machines = grown(estate, 3)
    assert all(lets_in(one, one.folder / OLD, one.folder / OLD_ROOTS) for one in machines)
    with Traffic(estate, machines).going_on() as traffic, Lease(machines).kept() as lease:
        said = estate.orchctl("cluster", "rotate-ca", "--timeout=50s")
    assert "started anew with the store's new root alone" in said
    assert "there is one root" in said
    traffic.check()
    check_exchanged(machines, machines[0])
    assert [machine.restarts for machine in machines] == [1, 1, 1]
    assert traffic.longest_s < SHORT_S
    assert (lease.failure, lease.renewals > 3) == ("", True)
    assert members(machines[0]) == [("cp1", False), ("cp2", False), ("cp3", False)]


def test_one_control_plane_halts_writes_while_its_only_member_starts(estate: Estate) -> None:
    """For seconds, and loses none. A second exchange is as good as the first."""
    (machine,) = machines = grown(estate, 1)
    with Traffic(estate, machines).going_on() as traffic:
        said = estate.orchctl("cluster", "rotate-ca", "--timeout=50s")
    assert "there is one root" in said
    traffic.check()
    check_exchanged(machines, machines[0])
    assert machine.restarts == 1
    assert traffic.longest_s < PAUSE_S
    keep_old(machine)
    estate.orchctl("cluster", "rotate-ca", "--timeout=50s")
    check_exchanged(machines, machines[0])


def test_an_instance_that_is_killed_in_the_middle_goes_on_when_it_starts(estate: Estate) -> None:
    """The leader, before it has anything; then it and its member of etcd, just as that is started anew."""
    machines = grown(estate, 3)
    leader = estate.until_leads(*machines)
    (victim,) = (one for one in machines if one.name == leader)
    others = [one for one in machines if one is not victim]
    with Traffic(estate, others).going_on() as traffic:
        begin = threading.Thread(target=lambda: estate.run("cluster", "rotate-ca", "--timeout=1s"))
        begin.start()
        issuing = lambda: len(certificate.split((victim.trust / "store-roots.pem").read_bytes())) == 2  # noqa: E731
        until(issuing, what="the exchange has begun", timeout_s=30)
        victim.kill("instance")
        begin.join()
        estate.until_leads(*others)
        assert [one.restarts for one in machines] == [0, 0, 0]
        assert f"controlplane:{victim.name}" in estate.orchctl(
            "cluster", "rotate-ca", "--status", "--timeout=2s", code=1
        )
        estate.orchctl("login", "--renew")
        victim.start_instance()
        until(lambda: victim.restarts == 1, what="its member is started anew", timeout_s=60, every_s=0.001)
        victim.kill("instance")
        victim.kill("etcd")
        victim.start()
        said = estate.orchctl("cluster", "rotate-ca", "--status", "--timeout=55s")
        assert "there is one root" in said
    traffic.check()
    check_exchanged(machines, machines[0])
    assert [one.restarts for one in machines] == [1, 1, 1], "each was started anew once, for all that was killed"


def test_a_member_that_nobody_would_start_again_is_not_ended(estate: Estate) -> None:
    """A person is told to, and the exchange goes on as soon as they have. Another instance may join meanwhile."""
    (machine,) = grown(estate, 1)
    machine.stop(signal.SIGTERM)
    machine.start_etcd(restarted=False)
    machine.start_instance()
    estate.until_leads(machine)
    waiting = estate.orchctl("cluster", "rotate-ca", "--timeout=10s", code=1)
    assert "controlplane:cp1: nothing would start its etcd again when it ends (--restarted)" in waiting
    assert machine.ended("etcd") is None
    assert "it is being exchanged" in estate.run("cluster", "doctor", "--without-network").stdout
    token = estate.orchctl("cluster", "token", "create", "--role=controlplane").splitlines()[0]
    joiner = estate.machine("cp2")
    estate.join(joiner, machine, token)
    joiner.start()
    until(lambda: ("cp2", False) in members(machine), what="it counts", timeout_s=40)
    estate.until_leads(machine, joiner)
    machine.kill("etcd")
    machine.start_etcd(restarted=False)
    assert "there is one root" in estate.orchctl("cluster", "rotate-ca", "--status", "--timeout=50s")
    check_exchanged([machine, joiner], machine)
    assert joiner.restarts == 0, "it believed nothing but the new root from the beginning"
