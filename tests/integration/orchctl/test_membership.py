"""Founding a cluster, letting people and machines in, and putting them out: as a person types it."""

import json
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from protos.orch.v1 import trust_pb2
from tests.support import killing, machines_of_control, orchctl
from tests.support.founded import Founded, running
from tests.support.machines_of_control import Estate
from tests.support.waiting import until
from trust import errands
from trust.core.identity import Role
from trust.folder import IDENTITY, ROOTS, Folder, Material, material

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Founded]:
    with running(tmp_path_factory.mktemp("founded")) as made:
        yield made


def test_init_tells_what_to_start_and_with_what_to_join(founded: Founded) -> None:
    """And a second one on the same folder does nothing."""
    for word in ("orch-etcd --trust", "orch-controlplane --name cp1", "orch-1.node.", "orch-1.controlplane."):
        assert word in founded.said
    before = sorted((founded.folder / "cp1").iterdir())
    again = founded.run(
        "cluster", "init", "--name=cp1", f"--trust={founded.folder / 'cp1'}", "--server=h", "--context=other"
    )
    assert again.code == 1
    assert "is not empty: a cluster was founded there" in again.err
    assert sorted((founded.folder / "cp1").iterdir()) == before


def test_a_person_logs_in_and_does_what_their_role_allows(founded: Founded) -> None:
    """Their key is theirs alone, and the context is the current one."""
    token = founded.token("--role=viewer", "--person=ann", "--uses=1")
    environ = founded.somebody("ann")
    login = orchctl.run(
        environ, "login", f"--door={founded.control.door}", f"--token={token}", f"--server={founded.control.address}",
        "--context=work",
    )  # fmt: skip
    assert (login.code, login.out) == (0, "logged in as viewer ann; context work is used now\n")
    kept = founded.folder / "ann"
    for path in (kept / "config.yaml", kept / "trust" / "work" / "identity.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    contexts = orchctl.run(environ, "config", "get-contexts").out
    assert ["*", "work", founded.control.address, "ann", "(viewer)"] in [line.split() for line in contexts.splitlines()]
    assert orchctl.run(environ, "get", "nodes").code == 0
    refused = orchctl.run(environ, "node", "drain", "n1")
    assert (refused.code, refused.err.splitlines()[0]) == (1, "orchctl: viewer ann may not call UpdateNode")
    assert "admin may" in refused.err
    used = orchctl.run(
        founded.somebody("bob"), "login", f"--door={founded.control.door}", f"--token={token}", "--context=x"
    )
    assert used.code == 1
    assert "is used up" in used.err
    assert not (founded.folder / "bob" / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("was_logged_in", [False, True])
def test_wherever_a_login_is_killed_the_same_command_ends_it(was_logged_in: bool, founded: Founded) -> None:
    """With the same token, whose one use is not used twice. Who was logged in is so at every moment."""
    environ = founded.somebody(f"kate{was_logged_in}")
    folder = founded.folder / f"kate{was_logged_in}"

    def login(context: str) -> Sequence[str]:
        token = founded.token("--role=viewer", "--person=kate", "--uses=1")
        return (
            *("login", f"--door={founded.control.door}", f"--server={founded.control.address}", f"--token={token}"),
            f"--context={context}",
        )

    if was_logged_in:
        assert orchctl.run(environ, *login("work")).code == 0
    for killer in killing.killers(folder):
        context = "work" if was_logged_in else f"work-{killer.at}"
        arguments = login(context)
        if not killer.kills(orchctl.command(*arguments), folder, environ):
            break
        if was_logged_in:
            assert orchctl.run(environ, "get", "nodes").code == 0
        again = orchctl.run(environ, *arguments)
        assert (again.code, again.out) == (0, f"logged in as viewer kate; context {context} is used now\n"), again.err
        assert orchctl.run(environ, "get", "nodes", f"--context={context}").code == 0
        assert {path.name for path in (folder / "trust" / context).glob("[!.]*")} == {IDENTITY, ROOTS}
    assert killer.at > 4, "it was killed at each of its steps"


def test_a_server_that_is_none_is_told_before_a_token_is_used(founded: Founded) -> None:
    environ = founded.somebody("lea")
    token = founded.token("--role=viewer", "--person=lea", "--uses=1")
    where = (f"--door={founded.control.door}", f"--token={token}", "--context=work")
    refused = orchctl.run(environ, "login", *where, "--server=http://h/")
    assert "--server: not a server's address" in refused.err
    assert orchctl.run(environ, "login", *where).code == 0


def test_a_person_renews_without_a_token(founded: Founded) -> None:
    """Another key and another certificate, for the same person."""
    environ = founded.somebody("dora")
    token = founded.token("--role=viewer", "--person=dora")
    where = (f"--door={founded.control.door}", f"--server={founded.control.address}", "--context=work")
    assert orchctl.run(environ, "login", f"--token={token}", *where).code == 0
    folder = Folder(founded.folder / "dora" / "trust" / "work")
    before = folder.load(Role.VIEWER)
    renewed = orchctl.run(environ, "login", "--renew")
    assert renewed.code == 0, renewed.err
    after = folder.load(Role.VIEWER)
    assert after.identity == before.identity
    assert after.facts.key_digest != before.facts.key_digest
    assert orchctl.run(environ, "get", "nodes").code == 0


def test_a_certificate_is_renewed_in_passing_once_it_has_lived_for_half(founded: Founded) -> None:
    """By any command that asks the control plane; a young one is left alone."""
    folder = Folder(founded.folder / "trust" / "home")
    assert founded.run("get", "nodes").code == 0
    young = folder.load()
    aged = _aged(founded, young)
    folder.save(aged)
    assert founded.run("get", "nodes").code == 0
    renewed = folder.load(Role.ADMIN)
    assert renewed.facts.not_after_ms > aged.facts.not_after_ms
    assert founded.run("get", "nodes").code == 0
    assert folder.load() == renewed


def _aged(founded: Founded, own: Material) -> Material:
    """The same key and person in a certificate of six minutes, five of which are over."""
    trust = trust_pb2.Founding.FromString((founded.folder / "founding").read_bytes()).trust
    root = errands.Root(
        certificate=trust.roots[0].certificate, sealed_key=trust.roots[0].sealed_key, about=trust.cluster
    )
    _, asked = errands.request(own.key.decode())
    wanted = errands.Wanted(cluster=trust.cluster, role="admin", name="root", lifetime_ms=60_000)
    sealing_key = (founded.folder / "cp1" / "sealing.key").read_bytes()
    chain = errands.issue(asked, wanted, root, sealing_key, time.time_ns() // 1_000_000)
    return material(own.key, chain.encode(), own.roots)


def test_a_token_is_listed_rotated_and_revoked(founded: Founded) -> None:
    """Its text comes once; afterwards there is its id."""
    token = founded.token("--role=node", "--expires=1h", "--uses=3")
    rows = [line.split() for line in founded.run("cluster", "token", "ls").out.splitlines()]
    mine = next(row for row in rows if row[1] == "node" and row[4] == "3")
    rotated = founded.run("cluster", "token", "rotate", mine[0])
    assert rotated.out.startswith("orch-1.node.")
    assert rotated.out.strip() != token
    listed = founded.run("cluster", "token", "ls").out
    assert mine[0] not in listed
    assert token.split(".")[-1] not in listed
    gone = founded.run("cluster", "token", "revoke", mine[0])
    assert gone.code == 1
    assert f"there is no token '{mine[0]}'" in gone.err


def test_a_token_that_is_used_up_is_not_rotated(founded: Founded) -> None:
    """No uses are any number of them: another in its place would be good for everybody."""
    token = founded.token("--role=viewer", "--person=flo", "--uses=1")
    where = f"--door={founded.control.door}", f"--server={founded.control.address}"
    assert orchctl.run(founded.somebody("flo"), "login", *where, f"--token={token}", "--context=x").code == 0
    mine = next(row for row in founded.run("cluster", "token", "ls").out.splitlines() if " flo " in row).split()[0]
    refused = founded.run("cluster", "token", "rotate", mine)
    assert refused.code != 0
    assert f"token {mine} is used up" in refused.err


def test_a_node_joins_with_one_command_and_is_put_out_with_one(founded: Founded) -> None:
    """A second try after a mistake works; a name that is taken is told."""
    (founded.folder / "token").write_text(founded.token("--role=node"))
    state = founded.folder / "n1"

    def join(where: Path, door: str, name: str = "n1") -> orchctl.Result:
        token = f"--token=@{founded.folder / 'token'}"
        return founded.run("node", "join", token, f"--door={door}", f"--state={where}", f"--name={name}")

    nobody = join(state, "127.0.0.1:1")
    assert nobody.code == 1
    assert "cannot reach the door of the control plane at 127.0.0.1:1" in nobody.err
    joined = join(state, founded.control.door)
    assert joined.code == 0, joined.err
    assert f"--trust {state / 'trust'}" in joined.out
    taken = join(founded.folder / "n2", founded.control.door)
    assert taken.code == 1
    assert "the name n1 belongs to another node" in taken.err
    member = f"node:{Folder(state / 'trust').load(Role.NODE).identity.name}"
    assert member in founded.run("cluster", "member", "ls").out
    assert founded.run("cluster", "member", "revoke", member).code == 0
    assert member not in founded.run("cluster", "member", "ls").out
    lines = (founded.folder / "cp1-state" / "audit.log").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert {"who": "root", "role": "admin", "call": "RevokeMember", "objects": [member]}.items() <= told[-1].items()


def test_who_did_what_is_a_table_for_admins(founded: Founded) -> None:
    """What lasts is there when it begins and when it ends. Who is bound to a namespace does not see it."""
    founded.run("network", "check")

    def told() -> list[list[str]]:
        lines = founded.run("get", "events", "--audit").out.splitlines()
        return [line.split()[1:] for line in lines if "CheckNetwork" in line]

    until(lambda: len(told()) == 2, what="both are in the store", timeout_s=20)
    begun, ended = told()
    assert begun == ["root", "admin", "CheckNetwork", "begun", "-", "cp1", "-"]
    assert ended[:4] == ["root", "admin", "CheckNetwork", "ended"]
    token, environ = founded.token("--role=admin", "--person=bea", "--for=shop"), founded.somebody("bea")
    where = (f"--door={founded.control.door}", f"--server={founded.control.address}", "--context=work")
    assert orchctl.run(environ, "login", f"--token={token}", *where).code == 0
    refused = orchctl.run(environ, "get", "events", "--audit")
    assert refused.code == 1
    assert "admin bea may not call ListAudit for what belongs to the whole cluster" in refused.err
    assert "when bound to no namespace" in refused.err


def test_the_last_admin_is_not_put_out(founded: Founded) -> None:
    """Nobody could make a token any more; with the remedy it can be done."""
    refused = founded.run("cluster", "member", "revoke", "person:root")
    assert refused.code == 1
    assert "person:root is the last admin: nobody could let anybody in" in refused.err
    assert "hint: let another one in" in refused.err
    assert founded.run("get", "nodes").code == 0
    token = founded.token("--role=admin", "--person=otto", "--uses=1")
    otto = founded.somebody("otto")
    where = (f"--door={founded.control.door}", f"--server={founded.control.address}", "--context=work")
    assert orchctl.run(otto, "login", f"--token={token}", *where).code == 0
    assert founded.run("cluster", "member", "revoke", "person:otto").code == 0


def test_another_cluster_is_told_from_one_s_own(founded: Founded) -> None:
    """The certificate that is shown is not of the cluster that one is logged in to."""
    environ = founded.somebody("eve")
    init = orchctl.run(environ, "cluster", "init", "--name=x", f"--trust={founded.folder / 'x'}", "--server=h")
    assert init.code == 0, init.err
    refused = orchctl.run(environ, "get", "nodes", f"--server={founded.control.address}")
    assert refused.code == 1
    assert "is not of the cluster that this context is logged in to" in refused.err


def test_the_root_is_exchanged_with_one_command(tmp_path: Path) -> None:
    """It tells whom it waits for, and an admin who looks has come; who is left behind has to log in anew."""
    with machines_of_control.estate(tmp_path) as estate:
        machine = estate.machine("cp1")
        estate.found(machine)
        machine.start()
        estate.until_leads(machine)
        where = (f"--door={machine.door}", f"--server={machine.server}", "--context=work")
        people = {}
        for name, role in (("carl", "viewer"), ("dora", "admin")):
            (tmp_path / name).mkdir()
            people[name] = orchctl.environment(tmp_path / name)
            token = estate.orchctl("cluster", "token", "create", f"--role={role}", f"--person={name}").splitlines()[0]
            assert orchctl.run(people[name], "login", f"--token={token}", *where).code == 0
        estate.orchctl("cluster", "rotate-ca", "--timeout=3s", code=1)  # perhaps while the store starts anew
        until(lambda: _waits_for(estate, "person:carl", "person:dora"), what="everybody else has renewed", timeout_s=40)
        orchctl.run(people["dora"], "cluster", "rotate-ca", "--status", "--timeout=1s")
        until(lambda: _waits_for(estate, "person:carl"), what="who looks is waited for no more", timeout_s=10)
        assert "--leave-behind" in estate.run("cluster", "rotate-ca", "--status", "--timeout=0s").stderr
        done = estate.orchctl("cluster", "rotate-ca", "--leave-behind=person:carl")
        assert "there is one root" in done
        estate.orchctl("get", "nodes")
        assert orchctl.run(people["dora"], "get", "nodes").code == 0
        assert "no tokens" in estate.orchctl("cluster", "token", "ls")
        late = orchctl.run(people["carl"], "get", "nodes")
        assert late.code == 1
        assert orchctl.run(people["carl"], "login", f"--token={token}", *where).code == 1
        token = estate.orchctl("cluster", "token", "create", "--role=viewer", "--person=carl").splitlines()[0]
        assert orchctl.run(people["carl"], "login", f"--token={token}", *where).code == 0
        assert orchctl.run(people["carl"], "get", "nodes").code == 0


def _waits_for(estate: Estate, *names: str) -> bool:
    """Whether the exchange waits for these members alone."""
    said = estate.run("cluster", "rotate-ca", "--status", "--timeout=0s").stderr
    return {line.strip() for line in said.splitlines() if line.strip().startswith(("person:", "node:"))} == {*names}
