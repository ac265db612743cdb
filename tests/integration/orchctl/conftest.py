"""The real program, and a control plane behind real gRPC for it to talk to."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import fake_control, orchctl, samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

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
    path.write_text(samples.HELLO_MANIFEST)
    return str(path)
