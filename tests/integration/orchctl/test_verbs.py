"""Nodes, images and the other verbs with the real program, and what it says when something breaks."""

import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb
from tests.support import orchctl, samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

Run = Callable[..., Result]


def test_nodes_are_drained_and_labelled(run: Run, fake: FakeControl) -> None:
    fake.put(samples.node())
    drained = run("node", "drain", "n1").out.splitlines()
    assert drained == [
        "node/n1 draining: its tasks are replaced on other nodes",
        "node/n1: it has no tasks any more",
    ]
    assert run("node", "drain", "n1", "-d", "--deadline", "10m").out.count("\n") == 1
    assert run("node", "label", "n1", "disk=hdd", "zone=b").out == "node/n1 labelled\n"
    assert run("node", "label", "n1", "disk=ssd", "zone-").out == "node/n1 labelled\n"
    assert fake.asked(control.UpdateMetaRequest)[-1].overwrite
    node = fake.find("node", "", "n1")
    assert isinstance(node, pb.Node)
    assert node.spec.availability == pb.AVAILABILITY_DRAIN
    assert dict(node.meta.labels) == {"disk": "ssd"}


@pytest.mark.parametrize(
    ("verb", "availability"),
    [
        ("cordon", pb.AVAILABILITY_PAUSE),
        ("pause", pb.AVAILABILITY_PAUSE),
        ("uncordon", pb.AVAILABILITY_ACTIVE),
        ("activate", pb.AVAILABILITY_ACTIVE),
    ],
)
def test_nodes_are_paused_and_made_active(
    run: Run, fake: FakeControl, verb: str, availability: pb.Availability.ValueType
) -> None:
    """By the verbs of Swarm and by those of Kubernetes."""
    before = samples.node()
    before.spec.availability = pb.AVAILABILITY_DRAIN
    fake.put(before)
    assert run("node", verb, "n1").out.startswith("node/n1 ")
    node = fake.find("node", "", "n1")
    assert isinstance(node, pb.Node)
    assert node.spec.availability == availability


@pytest.mark.parametrize(
    "typed",
    [
        ("rollout", "undo", "hello", "--to-revision", "99999999999"),
        ("cluster", "token", "create", "--role", "node", "--uses", "99999999999"),
    ],
)
def test_a_number_for_which_requests_have_no_room_is_refused_in_words(run: Run, typed: tuple[str, ...]) -> None:
    result = run(*typed)
    assert (result.code, "99999999999 is not in the range" in result.err) == (2, True)


def test_a_node_that_does_not_come_back_is_given_up(run: Run, fake: FakeControl) -> None:
    gone = samples.node()
    gone.status.state, gone.status.held = pb.NODE_STATE_DOWN, True
    fake.put(gone)
    assert "DOWN (tasks held)" in run("node", "ls").out
    assert "`orchctl node lost n1` says that it does not" in run("describe", "node", "n1").out
    assert run("node", "lost", "n1").out == "node/n1 given up: its tasks are replaced on other nodes\n"
    assert "DOWN (given up)" in run("node", "ls").out


def test_a_control_plane_that_cannot_give_up_a_node_is_told_of(run: Run, fake: FakeControl) -> None:
    """As an older one answers, which takes no notice of what it does not know."""
    fake.put(samples.node())
    result = run("node", "lost", "n1")
    assert result.code == 1
    assert "of a release that does not know this" in result.err
    assert "orchctl delete node n1" in result.err


@pytest.mark.parametrize("piped", [False, True])
def test_an_image_arrives_as_it_is(run: Run, server: str, fake: FakeControl, tmp_path: Path, piped: bool) -> None:
    archive = os.urandom((2 << 20) + 17)
    path = tmp_path / "hello.tar"
    path.write_bytes(archive)
    options = ("--name", "hello:2", "--cmd", "/bin/httpd -f", "--env", "A=b", "--expose", "8080")
    if piped:
        result = orchctl.run(
            orchctl.environment(tmp_path, server), "image", "push", "--archive", "-", *options, stdin=archive
        )
    else:
        result = run("image", "push", "--archive", str(path), *options)
    assert (result.code, result.out) == (0, "image/hello:2 pushed (abababababab, 2.0Mi)\n"), result.err
    assert fake.imported == archive
    (sent,) = fake.asked(control.ImportImageOptions)
    assert (sent.name, list(sent.cmd), list(sent.env)) == ("hello:2", ["/bin/httpd", "-f"], ["A=b"])


def test_half_an_archive_is_not_taken_for_a_whole_one(run: Run, fake: FakeControl) -> None:
    """Reading the memory of a process fails at its first byte."""
    result = run("image", "push", "--archive", "/proc/self/mem", "--name", "hello")
    assert (result.code, result.err) == (2, "orchctl: cannot read /proc/self/mem: Input/output error\n")
    assert fake.find("image", "", "hello") is None


def test_images_go_by_their_name_without_the_usual_tag(run: Run, fake: FakeControl) -> None:
    for name in ("hello:latest", "team/web:2"):
        fake.put(samples.image(name))
    assert run("get", "image", "hello", "-o", "name").out == "image/hello:latest\n"
    assert run("delete", "image", "hello").out == "image/hello:latest: deleted\n"
    assert run("delete", "image", "team/web:2").out == "image/team/web:2: deleted\n"
    assert run("get", "images").err == "no images\n"


def test_every_call_says_who_makes_it(run: Run, fake: FakeControl, hello: str) -> None:
    """Calls of each sort: with one answer and with many, with one message and with many."""
    fake.put(samples.image())
    fake.put(samples.service("web"))
    for arguments in (
        ("delete", "image", "hello:1.0"),
        ("image", "push", "--archive", hello),
        ("logs", "web"),
        ("exec", "web", "ls"),
    ):
        assert run(*arguments).code == 0
    calls = {"Delete", "ImportImage", "Logs", "Exec"}
    assert {call for call, actor in fake.actors.items() if "@" in actor} >= calls


def test_explain_needs_no_server(tmp_path: Path) -> None:
    environ = orchctl.environment(tmp_path)
    page = orchctl.run(environ, "explain", "svc.spec.replicas").out
    assert page.startswith("service.spec.replicas: ")
    assert "How many replicas run" in page
    assert "service" in orchctl.run(environ, "explain").out.splitlines()


def test_cluster_is_a_door_to_the_local_cluster(tmp_path: Path) -> None:
    environ = orchctl.environment(tmp_path)
    result = orchctl.run(environ, "cluster", "down", "--name", "nowhere", "--state", str(tmp_path / "state"))
    assert (result.code, result.out) == (0, "no cluster nowhere is up\n"), result.err


def test_a_refused_import_says_why(run: Run, fake: FakeControl, hello: str) -> None:
    fake.refuses["ImportImage"] = (grpc.StatusCode.INVALID_ARGUMENT, control.Error(message="not an archive"))
    result = run("image", "push", "--archive", hello)
    assert (result.code, result.err) == (2, "orchctl: not an archive\n")


def test_version_tells_of_both_sides(run: Run) -> None:
    lines = run("version").out.splitlines()
    assert lines[0].startswith("client:  orchctl ")
    assert lines[2] == "leader:  cp1 at 10.0.0.1:7400"


def test_contexts_are_chosen(tmp_path: Path, server: str) -> None:
    environ = orchctl.environment(tmp_path)
    assert orchctl.run(environ, "config", "set-context", "here", "--server", server).code == 0
    assert orchctl.run(environ, "config", "set-context", "gone", "--server", "127.0.0.1:1").code == 0
    assert orchctl.run(environ, "config", "use-context", "here").out == "context here is used now\n"
    assert orchctl.run(environ, "get", "svc").code == 0
    assert orchctl.run(environ, "get", "svc", "--context", "gone").code == 1
    assert orchctl.run(environ, "config", "get-contexts").out.splitlines()[2].split() == ["*", "here", server, "-"]
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_completion_script(tmp_path: Path, shell: str) -> None:
    script = orchctl.run(orchctl.environment(tmp_path), "completion", shell).out
    assert f"_ORCHCTL_COMPLETE={shell}_complete" in script
    if shell == "bash":
        check = 'eval "$1" && complete -p orchctl'
        done = subprocess.run(["bash", "-c", check, "bash", script], capture_output=True, text=True, check=True)
        assert "_orchctl_completion" in done.stdout


def test_completion_offers_names_from_the_server(tmp_path: Path, server: str, fake: FakeControl) -> None:
    fake.put(samples.service())
    environ = {**orchctl.environment(tmp_path, server), "_ORCHCTL_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    assert orchctl.run({**environ, "COMP_WORDS": "orchctl get service he"}).out == "plain,hello\n"
    unreachable = {**environ, "ORCH_SERVER": "127.0.0.1:1", "COMP_WORDS": "orchctl get service he"}
    result = orchctl.run(unreachable)
    assert (result.code, result.out.strip(), result.err) == (0, "", "")


def test_nobody_there_is_one_line_and_a_hint(tmp_path: Path) -> None:
    result = orchctl.run(orchctl.environment(tmp_path, "127.0.0.1:1"), "get", "svc")
    assert result.code == 1
    lines = result.err.splitlines()
    assert lines[0] == "orchctl: cannot reach the control plane at 127.0.0.1:1: Connection refused"
    assert lines[1].startswith("hint: ")


def test_nothing_is_ever_sent_in_the_clear(tmp_path: Path) -> None:
    """Also by who has no certificate: what reads the port sees the beginning of a handshake, and no call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            orchctl.command("scale", "hello=2"), env=orchctl.environment(tmp_path, address), stderr=subprocess.PIPE
        )
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            first = connection.recv(1)
        _, err = process.communicate(timeout=orchctl.TIMEOUT_S)
    assert first == b"\x16", "a record of a TLS handshake (RFC 8446, 5.1)"
    assert process.returncode == 1
    assert f"cannot reach the control plane at {address}" in err.decode()


def test_something_else_on_the_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(10)
        address = f"127.0.0.1:{other.getsockname()[1]}"
        process = subprocess.Popen(
            orchctl.command("version"),
            env=orchctl.environment(tmp_path, address),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            _, err = process.communicate(timeout=orchctl.TIMEOUT_S)
    assert process.returncode == 1
    first = f"orchctl: cannot reach the control plane at {address}: what answers there does not speak TLS"
    assert err.startswith(first)
    assert len(err.splitlines()) == 2


def test_nothing_configured_names_the_remedy(tmp_path: Path) -> None:
    result = orchctl.run(orchctl.environment(tmp_path), "get", "svc")
    assert result.code == 1
    assert result.err.startswith("orchctl: no control plane is configured\nhint: start one here with `orchctl cluster")


def test_a_reader_that_leaves_is_no_failure_worth_words(tmp_path: Path, server: str, fake: FakeControl) -> None:
    """As in `orchctl get tasks -o json | head -1`."""
    for slot in range(1, 400):
        fake.put(samples.task(slot))
    process = subprocess.Popen(
        orchctl.command("get", "tasks", "-o", "json"),
        env=orchctl.environment(tmp_path, server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(orchctl.TIMEOUT_S), err) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        (("rollout", "pause", "hello"), control.ROLLOUT_ACTION_PAUSE),
        (("rollout", "resume", "service/hello"), control.ROLLOUT_ACTION_RESUME),
        (("rollout", "promote", "hello"), control.ROLLOUT_ACTION_PROMOTE),
        (("rollout", "abort", "hello"), control.ROLLOUT_ACTION_ABORT),
        (("rollout", "undo", "hello", "--to-revision", "3"), control.ROLLOUT_ACTION_UNDO),
        (("rollout", "restart", "hello", "--detach"), control.ROLLOUT_ACTION_RESTART),
        (("restart", "hello"), control.ROLLOUT_ACTION_RESTART),
        (("stop", "hello"), control.ROLLOUT_ACTION_STOP),
        (("start", "hello"), control.ROLLOUT_ACTION_START),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_rollout_is_asked_for_what_is_typed(
    run: Run, fake: FakeControl, arguments: tuple[str, ...], action: control.RolloutAction.ValueType
) -> None:
    """And what was done is said in the words of the control plane."""
    fake.put(samples.service())
    result = run(*arguments)
    assert result.code == 0, result.err
    assert result.out.startswith(f"service/hello {control.RolloutAction.Name(action).lower()}")
    (sent,) = fake.asked(control.RolloutRequest)
    assert (sent.reference.name, sent.action, sent.revision) == ("hello", action, 3 if "3" in arguments else 0)


@pytest.mark.parametrize(
    ("state", "settled", "code"),
    [
        (pb.ROLLOUT_STATE_COMPLETED, True, 0),
        (pb.ROLLOUT_STATE_WAITING, False, 0),
        (pb.ROLLOUT_STATE_PAUSED, False, 1),
        (pb.ROLLOUT_STATE_ROLLED_BACK, False, 1),
    ],
)
def test_waiting_for_a_rollout_ends_with_what_became_of_it(
    run: Run, fake: FakeControl, state: pb.RolloutState.ValueType, settled: bool, code: int
) -> None:
    """Exit code 1 and the reason when it does not go on by itself."""
    service = samples.service()
    service.status.observed_generation = service.meta.generation
    service.status.settled = settled
    service.status.rollout.CopyFrom(pb.RolloutStatus(state=state, revision_id="rev1", message="it is so and so"))
    fake.put(service)
    result = run("rollout", "status", "hello", "-w", "--timeout", "5s")
    assert result.code == code, result.err
    assert ("it is so and so" in result.out + result.err) == (state != pb.ROLLOUT_STATE_COMPLETED)
    assert "it is so and so" in run("rollout", "status", "hello").out


def test_a_node_has_no_rollouts(run: Run, fake: FakeControl) -> None:
    """And nothing is asked for the services that stand before it."""
    fake.put(samples.service())
    result = run("rollout", "pause", "hello", "node/n1")
    assert (result.code, result.err) == (
        2,
        "orchctl: not a service: 'node/n1'\nhint: write the service's name, such as `web` or `service/web`\n",
    )
    assert not fake.asked(control.RolloutRequest)
