"""A backup is restored into an etcd that somebody else runs, with TLS: what can be wrong has one clear error, nothing
is half done, and a second try works.
"""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from controlplane.trust import storeplace
from deploy.host import controlplane, first, restore
from deploy.host.errors import HostError
from deploy.host.places import Places
from orchctl import config
from orchctl.errors import OrchctlError
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world, instances, machines_of_control, waiting
from tests.support.machines_of_control import Estate, Machine
from trust import joining
from trust.core.identity import Role
from trust.folder import Folder, Material, NotTrusted

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(240)]

START_S = 40


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Estate]:
    monkeypatch.setenv("ORCH_CONFIG", str(tmp_path / "config.yaml"))
    with machines_of_control.estate(tmp_path) as made:
        yield made


class OwnEtcd:
    """An etcd of the operator's own. A founded cluster's certificates serve as its own; the cluster never runs."""

    def __init__(self, estate: Estate, name: str) -> None:
        self.machine = estate.machine(name)
        estate.found(self.machine, f"--context={name}")
        self.ca = self.machine.trust / "store-roots.pem"
        self.cert, self.key = machines_of_control.split(self.machine.trust / "store.pem", self.machine.folder)
        self.address = f"{self.machine.host}:2379"
        self.url = f"https://{self.address}"

    def start(self) -> None:
        self.machine.start_etcd()
        waiting.until(self._answers, what="the etcd answers", timeout_s=START_S)

    def said(self, **other: object) -> list[str]:
        """The options about it; `ca=None` leaves one out."""
        options = {"etcd": self.url, "etcd-ca": self.ca, "etcd-cert": self.cert, "etcd-key": self.key}
        options |= {key.replace("_", "-"): value for key, value in other.items()}  # type: ignore[misc]
        return [f"--{key}={value}" for key, value in options.items() if value is not None]

    def written(self) -> tuple[int, int]:
        """How often anything was written, and how many keys of a cluster there are."""
        begin, end = (base64.b64encode(text).decode() for text in (b"/orch", b"/orci"))
        answer = self._asked("v3/kv/range", {"key": begin, "range_end": end, "count_only": True})
        return int(answer["header"]["revision"]), int(answer.get("count", 0))

    def put(self, key: str) -> None:
        self._asked("v3/kv/put", {"key": base64.b64encode(key.encode()).decode(), "value": "AA=="})

    def forget(self, key: str) -> None:
        self._asked("v3/kv/deleterange", {"key": base64.b64encode(key.encode()).decode()})

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(machines_of_control.members(self.machine))
        return False

    def _asked(self, call: str, question: Mapping[str, object]) -> Mapping[str, Mapping[str, str]]:
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.cert, self.key)
        request = urllib.request.Request(f"{self.url}/{call}", data=json.dumps(question).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            said: Mapping[str, Mapping[str, str]] = json.load(answer)
        return said


def at(machine: Machine) -> Places:
    """Where the machine's folders are, as on a machine of its own."""
    return Places(root=machine.folder)


def wish(machine: Machine, context: str, etcd: Sequence[str]) -> first.Wish:
    asked = controlplane.Wish(name=machine.name, address=machine.host)
    return first.Wish(machine=asked, context=context, admin="root", etcd=etcd)


def start(machine: Machine) -> None:
    machine.start_configured("instance", "controlplane", at(machine).configuration / "controlplane.yaml")


def admin(context: str) -> Material:
    return Folder(config.trust_folder(context)).load(Role.ADMIN)


def leads(machine: Machine, own: Material) -> None:
    def look() -> bool:
        assert machine.ended("instance") is None, machine.log("instance")
        answer = machine.ask(own)
        return answer is not None and answer.leader == machine.name

    waiting.until(look, what=f"{machine.name} leads", timeout_s=START_S)


def listed(machine: Machine, own: Material, kind: str) -> list[objects_pb2.Object]:
    with machine.stub(own) as stub:
        return list(stub.List(pb.ListRequest(kind=kind), timeout=10).objects)


def tasks(machine: Machine, own: Material) -> dict[str, objects_pb2.Task]:
    return {each.task.meta.id: each.task for each in listed(machine, own, "task")}


def run(machine: Machine, own: Material) -> set[str]:
    """The tasks that run, as the control plane tells it."""
    with contextlib.suppress(grpc.RpcError):
        states = tasks(machine, own).items()
        return {name for name, task in states if task.status.state == objects_pb2.TASK_STATE_RUNNING}
    return set()


def nodes(machine: Machine, own: Material) -> list[tuple[str, bool]]:
    """By their names, and whether they are ready."""
    found = (each.node for each in listed(machine, own, "node"))
    return sorted((one.meta.name, one.status.state == objects_pb2.NODE_STATE_READY) for one in found)


@contextlib.asynccontextmanager
async def session(agent: instances.Agent, machine: Machine) -> AsyncIterator[None]:
    running = asyncio.create_task(agent.run(machine.server))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.RpcError):
            await running


@aio.bounded(200)
async def test_a_cluster_is_restored_into_another_etcd_with_its_nodes_and_tasks(estate: Estate) -> None:
    """Both are somebody else's, of different authorities. The node comes with the certificate that it has, and what it
    runs are the tasks of before; of the first etcd nothing is needed any more. Where none is named, a member of the
    cluster's own is run, as from any backup.
    """
    here, there = OwnEtcd(estate, "here"), OwnEtcd(estate, "there")
    one, seven = estate.machine("cp1"), estate.machine("cp7")
    in_thread = asyncio.to_thread
    await in_thread(here.start)
    said = await in_thread(first.init, wish(one, "home", here.said()), at(one))
    token = next(line.split()[1] for line in said.splitlines() if "| orchctl node join" in line)
    start(one)
    await in_thread(leads, one, admin("home"))
    node = joining.Wish(name="n1-id", node_name="n1")
    own = (await in_thread(joining.join, one.door, token, node, Folder(estate.folder / "n1"))).own
    before = instances.Agent("n1", own=own)
    async with session(before, one):
        service = objects_pb2.Object(service=api_world.service(replicas=3))
        service.service.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
        with one.stub(admin("home")) as stub:
            await in_thread(stub.Apply, pb.ApplyRequest(objects=[service]), 30)
        whole = lambda: len(run(one, admin("home"))) == 3  # noqa: E731
        await in_thread(waiting.until, whole, what="all tasks run", timeout_s=START_S)
        path = estate.folder / "home.backup"
        await in_thread(estate.orchctl, "cluster", "backup", f"--trust={at(one).trust}", f"--out={path}")
    one.stop()
    here.machine.stop()

    await in_thread(there.start)
    said = await in_thread(restore.restore, wish(seven, "restored", there.said()), path, at(seven))
    assert "is restored as of revision" in said
    assert "orch-etcd" not in said, "nobody starts a member"
    assert not (at(seven).configuration / "etcd.yaml").exists()
    assert storeplace.load(Folder(at(seven).trust)).endpoints == [there.address]
    start(seven)
    await in_thread(leads, seven, admin("restored"))
    assert set(await in_thread(tasks, seven, admin("restored"))) == before.running
    assert [name for name, _ in await in_thread(nodes, seven, admin("restored"))] == ["n1"]
    again = instances.Agent("n1", own=own)
    async with session(again, seven):
        back = lambda: nodes(seven, admin("restored")) == [("n1", True)]  # noqa: E731
        await in_thread(waiting.until, back, what="the node is ready", timeout_s=START_S)
        same = lambda: run(seven, admin("home")) == before.running == again.running  # noqa: E731
        await in_thread(waiting.until, same, what="the tasks of before run", timeout_s=START_S)
    assert not any(task.status.restarts for task in (await in_thread(tasks, seven, admin("restored"))).values())

    nine = estate.machine("cp9")
    said = await in_thread(restore.restore, wish(nine, "own", ()), path, at(nine))
    assert "orch-etcd --config" in said
    nine.start_configured("etcd", "controlplane.member", at(nine).configuration / "etcd.yaml")
    start(nine)
    await in_thread(leads, nine, admin("own"))
    assert set(await in_thread(tasks, nine, admin("own"))) == before.running


# What is wrong ------------------------------------------------------------------------------------------------------


@pytest.fixture
def backed_up(estate: Estate) -> Path:
    """Of a cluster in an etcd of its own, which is gone."""
    lost = estate.machine("lost")
    estate.found(lost, "--context=lost")
    lost.start()
    waiting.until(lambda: lost.ask(admin("lost")), what="it answers", timeout_s=START_S)
    path = estate.folder / "lost.backup"
    estate.orchctl("cluster", "backup", f"--trust={lost.trust}", f"--out={path}")
    lost.stop()
    return path


def files(machine: Machine) -> set[str]:
    """Whatever a try has left on the machine, and of the person's contexts."""
    folders = (machine.folder, config.trust_folder("restored"), config.trust_folder("restored.new"))
    return {str(path) for folder in folders for path in folder.rglob("*") if path.is_file()}


def refused(machine: Machine, path: Path, etcd: Sequence[str]) -> str:
    """Why, and the remedy; nothing was written down."""
    contexts = config.load(config.default_path())
    with pytest.raises((HostError, OrchctlError, NotTrusted)) as error:
        restore.restore(wish(machine, "restored", etcd), path, at(machine))
    assert files(machine) == set()
    assert config.load(config.default_path()) == contexts
    said = f"{error.value} | {getattr(error.value, 'hint', '')}"
    assert "\n" not in said
    return said


def restored(machine: Machine, path: Path, etcd: Sequence[str]) -> None:
    said = restore.restore(wish(machine, "restored", etcd), path, at(machine))
    assert "is restored as of revision" in said
    start(machine)
    leads(machine, admin("restored"))


@contextlib.contextmanager
def no_etcd(host: str) -> Iterator[str]:
    """A server that greets whoever comes, and hangs up; its URL."""
    with socket.create_server((host, 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = server.accept()
                    with link, contextlib.suppress(OSError):
                        link.sendall(b"220 mail.example.com\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        try:
            yield f"https://{host}:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_what_is_wrong_with_the_etcd_is_told_and_the_next_try_works(estate: Estate, backed_up: Path) -> None:
    """Whichever of its options is wrong, forgotten, or of another etcd."""
    etcd, other = OwnEtcd(estate, "there"), OwnEtcd(estate, "other")
    machine = estate.machine("cp7")
    said = refused(machine, backed_up, etcd.said())
    assert f"no member of the etcd answers: {etcd.address}: Connection refused" in said
    assert "curl --cacert" in said
    etcd.start()
    fresh = etcd.written()
    text = estate.folder / "notes.txt"
    text.write_text("not a certificate\n")
    wrongs = {
        "its certificate is not believed, by --etcd-ca: unable to get local issuer": {"etcd_ca": other.ca},
        "it hangs up on the certificate of --etcd-cert": {"etcd_cert": other.cert, "etcd_key": other.key},
        "are no CA, certificate and key that fit: KEY_VALUES_MISMATCH": {"etcd_key": other.key},
        f"{text}, {etcd.cert}, {etcd.key} are no CA, certificate and key that fit": {"etcd_ca": text},
        f"cannot read one of {etcd.ca}, {estate.folder}/gone": {"etcd_cert": estate.folder / "gone"},
        "--etcd-key must be given, too: an etcd that there is already is spoken to by TLS": {"etcd_key": None},
        "--etcd-ca and --etcd-cert must be given, too": {"etcd_ca": None, "etcd_cert": None},
        "--etcd must be given, too": {"etcd": None},
        "'http://10.0.0.1:2379' is not https://HOST:PORT of a member of etcd": {"etcd": "http://10.0.0.1:2379"},
        "'https://10.0.0.1' is not https://HOST:PORT": {"etcd": "https://10.0.0.1"},
        "'https://10.0.0.1:port' is not https://HOST:PORT": {"etcd": "https://10.0.0.1:port"},
        "'https://10.0.0.1:99999' is not https://HOST:PORT": {"etcd": "https://10.0.0.1:99999"},
        "'https://me@10.0.0.1:2379' is not https://HOST:PORT": {"etcd": "https://me@10.0.0.1:2379"},
    }
    for why, changed in wrongs.items():
        assert why in refused(machine, backed_up, etcd.said(**changed))
    with no_etcd(machine.host) as url:
        assert "it does not speak TLS there" in refused(machine, backed_up, etcd.said(etcd=url))
    assert etcd.written() == fresh
    restored(machine, backed_up, etcd.said())
    assert etcd.written()[1] > 3


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(estate: Estate, backed_up: Path) -> None:
    """Instances start without a person."""
    etcd = OwnEtcd(estate, "there")
    etcd.start()
    locked = estate.folder / "locked.pem"
    locked.write_bytes(_locked(etcd.key.read_bytes()))
    said = refused(estate.machine("cp7"), backed_up, etcd.said(etcd_key=locked))
    assert "are no CA, certificate and key that fit" in said
    assert "the key is the certificate's, without a password" in said


def _locked(key: bytes) -> bytes:
    """The same, which only a password opens."""
    opened = serialization.load_pem_private_key(key, None)
    form, password = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    return opened.private_bytes(serialization.Encoding.PEM, form, password)


def test_an_etcd_that_is_not_empty_is_left_as_it_is(estate: Estate, backed_up: Path) -> None:
    """Also where only the certificates are made, and the instance is the first to look. What is not a cluster's is no
    hindrance.
    """
    etcd = OwnEtcd(estate, "there")
    machine, manual = estate.machine("cp7"), estate.machine("cp8")
    etcd.start()
    etcd.put("/orch/services/default/web")
    etcd.put("/other/key")
    full = etcd.written()
    said = refused(machine, backed_up, etcd.said())
    assert f"the etcd at {etcd.address} holds a cluster already" in said
    assert "name an etcd in which no key begins with /orch" in said

    where = (f"--name={manual.name}", f"--trust={manual.trust}", f"--server={manual.server}", "--context=manual")
    estate.orchctl("cluster", "restore", str(backed_up), *where, *etcd.said())
    manual.start_instance()
    waiting.until(lambda: manual.ended("instance") == 1, what="it refuses", timeout_s=START_S)
    told = manual.log("instance")
    assert "the store holds a cluster already (1 entries)" in told
    assert f"nothing was written; remove {manual.trust}, and restore with --etcd of an empty etcd" in told
    assert etcd.written() == full

    etcd.forget("/orch/services/default/web")
    restored(machine, backed_up, etcd.said())
