"""The real program against a control plane behind real gRPC: output, exit codes, and what became of the objects."""

import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from manifests import reader
from manifests.documents import Source
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb
from tests.support import fake_control, orchctl, samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

HELLO = """\
kind: Service
meta: {name: hello}
spec:
  replicas: 3
  template: {container: {image: "hello:1.0"}}
"""
Run = Callable[..., Result]


@pytest.fixture
def fake() -> FakeControl:
    return FakeControl()


@pytest.fixture
def server(fake: FakeControl) -> Iterator[str]:
    with fake_control.running(fake) as (_, address):
        yield address


@pytest.fixture
def run(server: str, tmp_path: Path) -> Run:
    environ = orchctl.environment(tmp_path, server)
    return lambda *arguments, stdin="": orchctl.run(environ, *arguments, stdin=stdin)


@pytest.fixture
def hello(tmp_path: Path) -> str:
    path = tmp_path / "hello.yaml"
    path.write_text(HELLO)
    return str(path)


# ------------------------------------------------------------------------------------------------------- apply


def test_apply_makes_what_is_written_and_waits(run: Run, fake: FakeControl, hello: str) -> None:
    result = run("apply", "-f", hello)
    assert (result.code, result.out) == (0, "service/hello created\nservice/hello: 3 of 3 ready\n"), result.err
    service = fake.find("service", "default", "hello")
    assert isinstance(service, pb.Service)
    assert service.spec.replicas == 3


def test_apply_again_changes_nothing(run: Run, hello: str) -> None:
    run("apply", "-f", hello, "--detach")
    assert run("apply", "-f", hello, "--detach").out == "service/hello unchanged\n"


def test_apply_reads_folders_and_standard_input(run: Run, fake: FakeControl, tmp_path: Path) -> None:
    """Folders with everything below them, hidden ones left out."""
    for name in ("b.yml", "sub/a.yaml", ".hidden/c.yaml", "notes.txt"):
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HELLO.replace("hello}", f"{path.stem}}}"))
    result = run("apply", "-f", str(tmp_path / "shop"), "-f", "-", "--detach", stdin=HELLO)
    assert result.out.splitlines() == ["service/b created", "service/a created", "service/hello created"], result.err
    assert fake.find("service", "default", "c") is None


def test_a_dry_run_shows_and_writes_nothing(run: Run, fake: FakeControl, hello: str) -> None:
    result = run("apply", "-f", hello, "--dry-run")
    assert (result.code, result.out) == (0, "service/hello created (dry run)\n")
    assert fake.find("service", "default", "hello") is None


def test_every_mistake_of_a_manifest_is_a_line_with_its_place(run: Run, fake: FakeControl, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(HELLO.replace("replicas: 3", "replicas: many").replace("image:", "imagee:"))
    result = run("apply", "-f", str(path))
    assert result.code == 2
    assert f"{path}:4:13: spec.replicas: " in result.err
    assert f"{path}:5:26: spec.template.container.imagee: unknown field" in result.err
    assert result.err.splitlines()[-1] == "orchctl: 2 mistakes; nothing was changed"
    assert not fake.asked(control.ApplyRequest)


def test_the_namespace_option_fills_in_and_contradicts(run: Run, fake: FakeControl, hello: str, tmp_path: Path) -> None:
    assert run("-n", "shop", "apply", "-f", hello, "--detach").code == 0
    assert fake.find("service", "shop", "hello") is not None
    other = tmp_path / "other.yaml"
    other.write_text(HELLO.replace("name: hello", "name: hello, namespace: other"))
    result = run("apply", "-n", "shop", "-f", str(other))
    assert result.code == 2
    assert "Service other/hello says its own namespace" in result.err


def test_warnings_are_for_the_person_only(
    run: Run, fake: FakeControl, hello: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result_of = fake._apply

    def with_warning(wanted: pb.Service, *, dry_run: bool) -> control.ApplyResult:
        result = result_of(wanted, dry_run=dry_run)
        result.warnings.append("no image hello:1.0 \x1b[2J")
        return result

    monkeypatch.setattr(fake, "_apply", with_warning)
    result = run("apply", "-f", hello, "--detach")
    assert result.err == "warning: service/hello: no image hello:1.0 \\x1b[2J\n"
    assert result.out == "service/hello created\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["apply"], "missing option '-f' / '--file'"),
        (["apply", "-f", "/nowhere.yaml"], "cannot read /nowhere.yaml: No such file or directory"),
        (["apply", "-f", "/dev/null"], "there is no object in these files"),
        (["apply", "-f", "-", "-f", "-"], "standard input (`-f -`) can be read once only"),
        (["apply", "-f", "x", "--timeout", "soon"], "not a duration: 'soon'"),
        (["scale", "hello"], "not a service and a number: 'hello'"),
        (["delete"], "name objects, or files with -f"),
        (["get", "servise"], "there is no kind 'servise'"),
        (["get"], "missing argument 'KIND [NAME…]'"),
        (["explain", "servise"], "there is no kind 'servise'"),
        (["get", "all", "-w"], "one kind at a time can be watched"),
        (["describe", "service"], "a kind and a name are needed"),
        (["exec", "hello"], "missing argument '-- COMMAND [ARGUMENT…]'"),
        (["exec", "hello", "-it", "sh"], "options go before the target: -it"),
        (["exec", "-it", "hello", "sh"], "standard input is not a terminal"),
        (["logs", "node/n1"], "a node prints nothing"),
        (["explain", "service.spek"], 'service has no field "spek"'),
        (["-A", "scale", "hello=1"], "--all-namespaces works with `get` only"),
        (["--server", "http://x", "get", "svc"], "--server: not a server's address: 'http://x'"),
    ],
)
def test_wrong_usage_is_one_line_with_exit_code_2(run: Run, arguments: Sequence[str], message: str) -> None:
    result = run(*arguments)
    assert result.code == 2, result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) <= 2
    assert not result.out


# ------------------------------------------------------------------------------------------------- get, describe


def test_get_shows_a_table(run: Run, fake: FakeControl) -> None:
    fake.put(samples.node())
    fake.put(samples.task(1))
    lines = run("get", "tasks").out.splitlines()
    assert lines[0].split() == ["NAME", "NODE", "STATE", "READY", "RESTARTS", "ADDRESS", "AGE", "MESSAGE"]
    assert lines[1].split()[:4] == ["hello-1-aaaaaaaa", "n1", "RUNNING", "yes"]


def test_what_yaml_shows_can_be_applied_again(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    fake.put(samples.service("web"))
    shown = run("get", "services", "-o", "yaml").out
    values = reader.read([Source(name="shown", text=shown.encode())]).objects
    assert [value.meta.name for value in values] == ["hello", "web"]
    assert run("apply", "-f", "-", "--detach", stdin=shown).out == "service/hello unchanged\nservice/web unchanged\n"


def test_a_pipe_gets_exactly_what_is_stored(run: Run, fake: FakeControl) -> None:
    """Signs that a terminal is kept from, too: what was shown can be applied again."""
    service = samples.service()
    service.spec.template.container.env["ODD"] = "\u202e turned, \x9b, \x1b[2J, tab\t, two\nlines, \u2028, yes"
    fake.put(service)
    shown = run("get", "svc", "-o", "yaml").out
    (value,) = reader.read([Source(name="shown", text=shown.encode())]).objects
    assert isinstance(value, pb.Service)
    assert value.spec == service.spec
    (listed,) = json.loads(run("get", "svc", "-o", "json").out)
    assert listed["spec"]["template"]["container"]["env"] == dict(service.spec.template.container.env)


def test_json_is_a_list_or_the_one_that_was_named(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    assert [each["meta"]["name"] for each in json.loads(run("get", "svc", "-o", "json").out)] == ["hello"]
    assert json.loads(run("get", "svc", "hello", "-o", "json").out)["spec"]["replicas"] == 3
    assert json.loads(run("get", "tasks", "-o", "json").out) == []


def test_names_can_be_passed_on(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    name = run("get", "svc", "-o", "name").out.strip()
    assert name == "service/hello"
    assert run("delete", name).code == 0
    assert fake.find("service", "default", "hello") is None


def test_an_empty_list_is_told_and_no_failure(run: Run) -> None:
    result = run("get", "services")
    assert (result.code, result.out, result.err) == (0, "", "no services in namespace default\n")


def test_what_was_named_has_to_be_there(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    result = run("get", "svc", "hello", "nope")
    assert result.code == 1
    assert "hello" in result.out
    assert result.err == "orchctl: there is no service 'nope' in namespace default\n"


def test_all_namespaces_have_a_column(run: Run, fake: FakeControl) -> None:
    elsewhere = samples.service("far")
    elsewhere.meta.namespace = "shop"
    fake.put(elsewhere)
    assert run("get", "svc").out == ""
    assert run("get", "svc", "-A").out.splitlines()[1].split()[:2] == ["shop", "far"]


def test_describe_and_inspect_show_pages(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    fake.put(samples.PENDING)
    fake.put(samples.node())
    page = run("describe", "service", "hello").out
    assert "3 of 3 ready" in page
    assert "not enough memory" in page
    assert "10.112.1.0/24" in run("node", "inspect", "n1").out


def test_a_refusal_shows_message_and_hint(run: Run) -> None:
    result = run("describe", "service", "nope")
    assert result.code == 1
    assert result.err == "orchctl: there is no service 'nope'\nhint: look at the list\n"


def test_every_field_of_a_refusal_is_a_line(run: Run, fake: FakeControl, hello: str) -> None:
    error = control.Error(
        message="2 mistakes",
        fields=[
            control.FieldError(object="Service default/hello", path="spec.replicas", message="too many"),
            control.FieldError(message="whatever"),
        ],
    )
    fake.refuses["Apply"] = (grpc.StatusCode.INVALID_ARGUMENT, error)
    result = run("apply", "-f", hello)
    assert result.code == 2
    assert result.err.splitlines() == [
        "Service default/hello: spec.replicas: too many",
        "whatever",
        "orchctl: 2 mistakes",
    ]


# ---------------------------------------------------------------------------------------- nodes, images, the rest


def test_nodes_are_drained_and_labelled(run: Run, fake: FakeControl) -> None:
    fake.put(samples.node())
    assert run("node", "drain", "n1").out == "node/n1 draining: its tasks are replaced on other nodes\n"
    assert run("node", "label", "n1", "disk=ssd").code == 0
    node = fake.find("node", "", "n1")
    assert isinstance(node, pb.Node)
    assert node.spec.availability == pb.AVAILABILITY_DRAIN
    assert dict(node.meta.labels) == {"disk": "ssd"}


@pytest.mark.parametrize("piped", [False, True])
def test_an_image_arrives_as_it_is(run: Run, server: str, fake: FakeControl, tmp_path: Path, piped: bool) -> None:
    archive = os.urandom((2 << 20) + 17)
    path = tmp_path / "hello.tar"
    path.write_bytes(archive)
    options = ("--name", "hello:2", "--cmd", "/bin/httpd -f", "--env", "A=b", "--expose", "8080")
    if piped:
        result = orchctl.run(orchctl.environment(tmp_path, server), "image", "import", "-", *options, stdin=archive)
    else:
        result = run("image", "import", str(path), *options)
    assert (result.code, result.out) == (0, "image/hello:2 imported (abababababab, 2.0Mi)\n"), result.err
    assert fake.imported == archive
    (sent,) = fake.asked(control.ImportImageOptions)
    assert (sent.name, list(sent.cmd), list(sent.env)) == ("hello:2", ["/bin/httpd", "-f"], ["A=b"])


def test_half_an_archive_is_not_taken_for_a_whole_one(run: Run, fake: FakeControl) -> None:
    """Reading the memory of a process fails at its first byte."""
    result = run("image", "import", "/proc/self/mem", "--name", "hello")
    assert (result.code, result.err) == (2, "orchctl: cannot read /proc/self/mem: Input/output error\n")
    assert fake.find("image", "", "hello") is None


def test_images_go_by_their_name_without_the_usual_tag(run: Run, fake: FakeControl) -> None:
    for name in ("hello:latest", "team/web:2"):
        fake.put(samples.image(name))
    assert run("get", "image", "hello", "-o", "name").out == "image/hello:latest\n"
    assert run("image", "rm", "hello").out == "image/hello:latest removed\n"
    assert run("delete", "image", "team/web:2").out == "image/team/web:2: deleted\n"
    assert run("image", "ls").err == "no images\n"


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
    result = run("image", "import", hello)
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
    assert orchctl.run(environ, "config", "get-contexts").out.splitlines()[2].split() == ["*", "here", server]
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


# --------------------------------------------------------------------------------------------------- what breaks


def test_nobody_there_is_one_line_and_a_hint(tmp_path: Path) -> None:
    result = orchctl.run(orchctl.environment(tmp_path, "127.0.0.1:1"), "get", "svc")
    assert result.code == 1
    lines = result.err.splitlines()
    assert lines[0] == "orchctl: cannot reach the control plane at 127.0.0.1:1: Connection refused"
    assert lines[1].startswith("hint: ")


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
    assert err.startswith(f"orchctl: cannot reach the control plane at {address}: ")
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
