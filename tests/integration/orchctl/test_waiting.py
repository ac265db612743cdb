"""Waiting: for what is asked for, for as long as was said, through a control plane that goes away."""

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb
from tests.support import fake_control, orchctl, samples
from tests.support.fake_control import FakeControl


@pytest.fixture
def fake() -> FakeControl:
    fake = FakeControl()
    fake.settles = False
    return fake


@pytest.fixture
def server(fake: FakeControl) -> Iterator[str]:
    with fake_control.running(fake) as (_, address):
        yield address


@contextmanager
def started(environ: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        orchctl.command(*arguments),
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=orchctl.TIMEOUT_S)


def lines_until(process: "subprocess.Popen[str]", pattern: str) -> list[str]:
    """The lines that the process prints up to one that the pattern matches. Fails when it ends before."""
    assert process.stdout is not None
    found = []
    guard = threading.Timer(orchctl.TIMEOUT_S, process.kill)
    guard.start()
    try:
        for line in process.stdout:
            found.append(line.rstrip("\n"))
            if re.search(pattern, line):
                return found
    finally:
        guard.cancel()
    raise AssertionError(f"no line like {pattern!r} in {found}; {process.stderr.read() if process.stderr else ''}")


def settle(fake: FakeControl, *, ready: int = 3, settled: bool = True) -> None:
    service = fake.find("service", "default", "hello")
    assert isinstance(service, pb.Service)
    fresh = pb.Service()
    fresh.CopyFrom(service)
    fresh.status.CopyFrom(samples.service(ready=ready, settled=settled).status)
    fresh.status.observed_generation = fresh.meta.generation
    fake.put(fresh)


def test_apply_waits_until_everything_is_as_asked(fake: FakeControl, server: str, tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text(samples.HELLO_MANIFEST)
    with started(orchctl.environment(tmp_path, server), "apply", "-f", str(tmp_path / "hello.yaml")) as process:
        lines_until(process, "waiting for the leader")
        settle(fake, ready=1, settled=False)
        lines_until(process, "1 of 3 ready")
        settle(fake)
        assert lines_until(process, "3 of 3 ready") == ["service/hello: 3 of 3 ready"]
        assert process.wait(orchctl.TIMEOUT_S) == 0


def test_more_services_than_a_watch_takes_are_waited_for_together(
    fake: FakeControl, server: str, tmp_path: Path
) -> None:
    """By the tasks of the whole namespace."""
    fake.settles = True
    many = "---\n".join(samples.HELLO_MANIFEST.replace("name: hello", f"name: hello-{n}") for n in range(40))
    path = tmp_path / "many.yaml"
    path.write_text(many)
    result = orchctl.run(orchctl.environment(tmp_path, server), "apply", "-f", str(path))
    assert result.code == 0, result.err
    (watched,) = fake.asked(control.WatchRequest)
    assert len(watched.selections) == 2


def test_what_is_missing_after_the_time_is_told_with_its_reason(fake: FakeControl, server: str, tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text(samples.HELLO_MANIFEST)
    waiting = samples.PENDING
    fake.put(waiting)
    arguments = ("apply", "-f", str(tmp_path / "hello.yaml"), "--timeout", "3s")
    with started(orchctl.environment(tmp_path, server), *arguments) as process:
        fake.wait_for_watchers()
        settle(fake, ready=2, settled=False)
        assert process.wait(orchctl.TIMEOUT_S) == 1
        assert process.stderr is not None
        err = process.stderr.read()
    assert err.splitlines()[0] == "service/hello: 2 of 3 ready"
    assert "1 task PENDING: no node takes it: 3 nodes: not enough memory" in err
    assert "orchctl: service/hello: not as asked after 3s" in err
    assert "orchctl describe service hello" in err


def test_a_service_that_is_deleted_meanwhile_is_not_waited_for(fake: FakeControl, server: str, tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text(samples.HELLO_MANIFEST)
    with started(orchctl.environment(tmp_path, server), "apply", "-f", str(tmp_path / "hello.yaml")) as process:
        fake.wait_for_watchers()
        service = fake.find("service", "default", "hello")
        assert service is not None
        fake.drop(service)
        assert process.wait(orchctl.TIMEOUT_S) == 1
        assert process.stderr is not None
        assert "service/hello: it was deleted meanwhile" in process.stderr.read()


def test_a_control_plane_that_goes_away_and_returns_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text(samples.HELLO_MANIFEST)
    fake = FakeControl()
    fake.settles = False
    address = f"unix:{tmp_path}/control"
    with fake_control.running(fake, address=address):
        process_context = started(orchctl.environment(tmp_path, address), "apply", "-f", str(tmp_path / "hello.yaml"))
        process = process_context.__enter__()
        fake.wait_for_watchers()
    try:
        settle(fake)
        with fake_control.running(fake, address=address):
            lines_until(process, "3 of 3 ready")
            assert process.wait(orchctl.TIMEOUT_S) == 0
        assert process.stderr is not None
        assert "; trying again" in process.stderr.read()
    finally:
        process_context.__exit__(None, None, None)


def test_delete_waits_until_everything_has_gone(fake: FakeControl, server: str, tmp_path: Path) -> None:
    service, task = samples.service(), samples.task(1)
    fake.put(service)
    fake.put(task)
    with started(orchctl.environment(tmp_path, server), "delete", "service", "hello") as process:
        lines_until(process, "1 task to stop")
        fake.drop(task)
        fake.drop(service)
        lines_until(process, "service/hello: deleted")
        assert process.wait(orchctl.TIMEOUT_S) == 0


def test_a_delete_that_does_not_end_in_time_fails(fake: FakeControl, server: str, tmp_path: Path) -> None:
    fake.put(samples.service())
    result = orchctl.run(orchctl.environment(tmp_path, server), "delete", "svc", "hello", "--timeout", "500ms")
    assert result.code == 1
    assert "orchctl: service/hello: still there after 500ms" in result.err


def test_scale_waits_and_detach_does_not(fake: FakeControl, server: str, tmp_path: Path) -> None:
    fake.put(samples.service())
    environ = orchctl.environment(tmp_path, server)
    assert orchctl.run(environ, "scale", "hello=5", "--detach").out == "service/hello scaled: 3 → 5\n"
    with started(environ, "scale", "hello=2") as process:
        lines_until(process, "waiting for the leader")
        settle(fake, ready=2)
        lines_until(process, "ready")
        assert process.wait(orchctl.TIMEOUT_S) == 0


def test_ctrl_c_ends_the_waiting_not_the_change(fake: FakeControl, server: str, tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text(samples.HELLO_MANIFEST)
    with started(orchctl.environment(tmp_path, server), "apply", "-f", str(tmp_path / "hello.yaml")) as process:
        lines_until(process, "waiting for the leader")
        process.send_signal(signal.SIGINT)
        assert process.wait(orchctl.TIMEOUT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "orchctl: no longer waiting\nhint: the cluster goes on with what was asked\n"
    assert fake.find("service", "default", "hello") is not None


def test_watched_events_come_with_their_namespace(fake: FakeControl, server: str, tmp_path: Path) -> None:
    """What is cleared away is no news, and what is about something else is not asked for."""
    began, healed = samples.event("Began", about="node/n1"), samples.event("Healed", about="node/n1")
    healed.meta.id = healed.meta.name = "n1.2"
    fake.put(began)
    fake.put(samples.event("Other", about="node/n2"))
    with started(orchctl.environment(tmp_path, server), "events", "-A", "-w", "--for", "node/n1") as process:
        assert lines_until(process, "Began")[0].startswith("NAMESPACE   LAST SEEN")
        fake.drop(began)
        fake.put(healed)
        assert [line.split()[0] for line in lines_until(process, "Healed")] == ["_"]
    fake.put(samples.event("Here"))
    listed = orchctl.run(orchctl.environment(tmp_path, server), "events", "-A").out.splitlines()
    assert listed[0].startswith("NAMESPACE   LAST SEEN")
    assert sorted(line.split()[0] for line in listed[1:]) == ["_", "_", "default"]


def test_watched_rows_come_as_things_change(fake: FakeControl, server: str, tmp_path: Path) -> None:
    fake.put(samples.node())
    task = samples.task(1, state=pb.TASK_STATE_PREPARING)
    fake.put(task)
    with started(orchctl.environment(tmp_path, server), "get", "tasks", "-w") as process:
        lines_until(process, "PREPARING")
        fake.put(samples.task(1))
        lines_until(process, "RUNNING")
        fake.drop(samples.task(1))
        lines_until(process, "deleted$")
        process.send_signal(signal.SIGINT)
        assert process.wait(orchctl.TIMEOUT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
