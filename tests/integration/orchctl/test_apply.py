"""`apply` with the real program: output, exit codes, and what became of the objects."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb
from tests.support import fake_control, samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

Run = Callable[..., Result]


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
        path.write_text(samples.HELLO_MANIFEST.replace("hello}", f"{path.stem}}}"))
    result = run("apply", "-f", str(tmp_path / "shop"), "-f", "-", "--detach", stdin=samples.HELLO_MANIFEST)
    assert result.out.splitlines() == ["service/b created", "service/a created", "service/hello created"], result.err
    assert fake.find("service", "default", "c") is None


def test_a_dry_run_shows_and_writes_nothing(run: Run, fake: FakeControl, hello: str) -> None:
    result = run("apply", "-f", hello, "--dry-run")
    assert result.code == 0
    assert result.out.startswith("service/hello created (dry run)\n--- service/hello (now)\n")
    assert "+  replicas: 3\n" in result.out
    assert fake.find("service", "default", "hello") is None


def test_every_mistake_of_a_manifest_is_a_line_with_its_place(run: Run, fake: FakeControl, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(samples.HELLO_MANIFEST.replace("replicas: 3", "replicas: many").replace("image:", "imagee:"))
    result = run("apply", "-f", str(path))
    assert result.code == 2
    assert f"{path}:4:13: spec.replicas: " in result.err
    assert f"{path}:5:26: spec.template.container.imagee: unknown field" in result.err
    assert result.err.splitlines()[-1] == "orchctl: 2 mistakes; nothing was changed"
    assert not fake.asked(control.ApplyRequest)


def with_filter(path: Path, line: str) -> str:
    """A manifest in the folder whose container has this line."""
    manifest = path / "shop" / "web.yaml"
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_text(samples.HELLO_MANIFEST.replace("image: ", f"seccomp: {line}, image: "))
    return str(manifest)


def test_apply_brings_the_files_that_a_manifest_names(run: Run, fake: FakeControl, tmp_path: Path) -> None:
    """Relative to the manifest, whatever folder the command is given in; the object holds what the file does."""
    path, profile = with_filter(tmp_path, "../profile.json"), '{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}\n'
    (tmp_path / "profile.json").write_text(profile)
    result = run("apply", "-f", path, "--detach")
    assert result.code == 0, result.err
    service = fake.find("service", "default", "hello")
    assert isinstance(service, pb.Service)
    assert service.spec.template.container.seccomp == profile
    assert run("apply", "-f", path, "--detach").out == "service/hello unchanged\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot read {file}: No such file or directory; paths are relative to the manifest"),
        (b"\xff", "{file} is not a text in UTF-8: byte 0 is not"),
        (b" " * 131_072, "{file} is larger than 131071 bytes; shorten it"),
        (b"{,}", '"./p.json": not JSON: Expecting property name enclosed in double quotes in line 1, column 2'),
        ("pipe", "{file} is not a file"),
    ],
)
def test_a_file_that_cannot_be_taken_is_told_at_its_place(
    run: Run, fake: FakeControl, tmp_path: Path, content: bytes | str | None, complaint: str
) -> None:
    """The manifest's line, the field, the file."""
    path = with_filter(tmp_path, "./p.json")
    file = tmp_path / "shop" / "p.json"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        os.mkfifo(file)
    result = run("apply", "-f", path)
    assert result.code == 2
    place, _, said = result.err.splitlines()[0].partition(": spec.template.container.seccomp: ")
    assert place.startswith(f"{path}:5:")
    assert said.startswith(complaint.replace("{file}", f"{tmp_path}/shop/./p.json"))
    assert not fake.asked(control.ApplyRequest)


def test_the_namespace_option_fills_in_and_contradicts(run: Run, fake: FakeControl, hello: str, tmp_path: Path) -> None:
    assert run("-n", "shop", "apply", "-f", hello, "--detach").code == 0
    assert fake.find("service", "shop", "hello") is not None
    other = tmp_path / "other.yaml"
    other.write_text(samples.HELLO_MANIFEST.replace("name: hello", "name: hello, namespace: other"))
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


def test_a_dry_run_is_asked_of_the_leader_and_an_apply_of_whoever_there_is(
    run: Run, fake: FakeControl, hello: str
) -> None:
    """Only the leader knows what nodes have of the images. When it cannot be reached, the others know the rest."""
    with fake_control.running() as (leader, address):
        fake.leader = address
        assert run("apply", "--dry-run", "-f", hello).code == 0
        assert [len(one.asked(control.ApplyRequest)) for one in (fake, leader)] == [0, 1]
        assert run("apply", "-f", hello).code == 0
        assert [len(one.asked(control.ApplyRequest)) for one in (fake, leader)] == [1, 1]
    fake.leader = "127.0.0.1:1"
    assert run("apply", "--dry-run", "-f", hello).code == 0
    assert len(fake.asked(control.ApplyRequest)) == 2
