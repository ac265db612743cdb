"""The real program against the real control plane; and the fake of the other tests held against it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from tests.support import control_process, fake_control, orchctl

HELLO = """\
kind: Service
meta: {name: hello, namespace: NAMESPACE}
spec:
  replicas: 3
  template: {container: {image: "hello:1.0", imagePullPolicy: never, env: {A: "1"}}}
"""


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    with control_process.running() as address:
        yield address


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.etcd)])
def either(request: pytest.FixtureRequest) -> Iterator[str]:
    """A control plane, imagined or real."""
    if request.param == "real":
        yield request.getfixturevalue("real")
        return
    with fake_control.running() as (_, address):
        yield address


# Command line, exit code, and what standard output has to match.
STORY: Sequence[tuple[str, int, str]] = (
    ("get services", 0, ""),
    ("apply -f - --detach --dry-run", 0, r"service/hello created \(dry run\)\n--- service/hello \(now\)\n.*"),
    ("diff -f -", 1, r"--- service/hello \(now\)\n.*\+  replicas: 3\n.*"),
    ("get services", 0, ""),
    ("apply -f - --detach", 0, r"service/hello created\n"),
    ("apply -f - --detach", 0, r"service/hello unchanged\n"),
    ("diff -f -", 0, ""),
    ("get service hello -o name", 0, r"service/hello\n"),
    ("get svc", 0, r"NAME +MODE +REPLICAS +IMAGE +AGE +STATUS\nhello +replicated +\d/3 +hello:1.0 .*\n"),
    ("get svc -o json", 0, r"\[\n.*\"replicas\": 3.*\]\n"),
    ("get svc nope", 1, ""),
    ("describe service hello", 0, r"Name: +hello\nNamespace: +story\n.*Image: +hello:1.0\n.*"),
    ("describe service nope", 1, ""),
    ("get networks", 0, ""),
    ("network ls", 0, r"NAME +INTERNAL +SERVICES +TASKS\ndefault +no +\d +0\n"),
    ("network inspect default", 0, r"Name: +default\nNamespace: +story\nInternal: +no\n.*"),
    ("network inspect nope", 1, ""),
    ("get endpoints nope", 1, ""),
    ("label service hello tier=front", 0, r"service/hello labelled\n"),
    ("get svc --show-labels -l tier=front,!old", 0, r"NAME .* LABELS\nhello .* tier=front\n"),
    ("get svc -l tier!=front", 0, ""),
    ("annotate service hello owner=Ann", 0, r"service/hello annotated\n"),
    ("wait service hello --for=meta.labels.tier=front", 0, r"service/hello in story: .*\n"),
    ("wait service nope", 1, ""),
    ("scale hello=5 --detach", 0, r"service/hello scaled: 3 → 5\n"),
    ("scale nope=5", 1, ""),
    ("get service hello -o yaml", 0, r"kind: Service\n.*  replicas: 5\n.*"),
    ("get nodes", 0, ""),
    ("node drain n1", 1, ""),
    ("logs nope", 1, ""),
    ("exec nope -- ls", 1, ""),
    ("delete service hello", 0, r"(service/hello in story: .*\n)*service/hello in story: deleted\n"),
    ("delete service hello", 1, ""),
    ("delete service hello --ignore-not-found", 0, ""),
    ("get services", 0, ""),
    ("version", 0, r"client: .*\nserver: .* \(cp1 at .*\)\nleader: +cp1 at .*\nstore: +fine.*\n"),
)


def test_both_tell_the_same_story(either: str, tmp_path: Path) -> None:
    """What the fake answers elsewhere in these tests, a control plane answers."""
    environ = orchctl.environment(tmp_path, either)
    for line, code, pattern in STORY:
        manifest = HELLO.replace("NAMESPACE", "story")
        result = orchctl.run(environ, "-n", "story", *line.split(), stdin=manifest)
        assert result.code == code, (line, result)
        assert re.fullmatch(pattern, result.out, re.DOTALL), (line, result)
        assert "Traceback" not in result.err
        assert code == 0 or line.startswith("diff") or result.err.startswith("orchctl: "), (line, result)


def test_both_take_an_image_in(either: str, tmp_path: Path) -> None:
    """And are sent nothing twice."""
    environ = {**orchctl.environment(tmp_path, either), "ORCH_IMAGE_STORE": str(tmp_path / "store")}
    build_image(ImageStore(tmp_path / "store"), [File(path="a", content=b"1" * 1024)], Config(), "pushed:1")
    for sent in (2, 0):
        result = orchctl.run(environ, "image", "push", "pushed:1")
        assert result.code == 0, result
        assert re.fullmatch(r"image/pushed:1 pushed \([0-9a-f]{12}, .*\)\n", result.out)
        assert result.err.count(": pushing") == sent
        assert result.err.count(": exists") == 2 - sent
    assert orchctl.run(environ, "get", "image", "pushed:1", "-o", "name").out == "image/pushed:1\n"


@pytest.mark.etcd
def test_what_is_missing_is_told_while_there_is_no_node(real: str, tmp_path: Path) -> None:
    environ = orchctl.environment(tmp_path, real)
    manifest = HELLO.replace("NAMESPACE", "lonely")
    result = orchctl.run(environ, "apply", "-f", "-", "--timeout", "1s", stdin=manifest)
    assert result.code == 1
    assert "service/hello in lonely: 0 of 3 ready" in result.out
    assert "3 tasks PENDING: no node takes it: " in result.err
    assert "orchctl: service/hello in lonely: not as asked after 1s" in result.err
    scaled = orchctl.run(environ, "-n", "lonely", "scale", "hello=0")
    assert (scaled.code, scaled.out.splitlines()[-1]) == (0, "service/hello in lonely: 0 of 0 ready")


@pytest.mark.etcd
def test_what_yaml_shows_changes_nothing_when_applied(real: str, tmp_path: Path) -> None:
    environ = orchctl.environment(tmp_path, real)
    orchctl.run(environ, "apply", "-f", "-", "--detach", stdin=HELLO.replace("NAMESPACE", "again"))
    shown = orchctl.run(environ, "-n", "again", "get", "service", "hello", "-o", "yaml").out
    assert orchctl.run(environ, "apply", "-f", "-", "--detach", stdin=shown).out == "service/hello unchanged\n"


@pytest.mark.etcd
def test_a_change_is_shown_by_its_path(real: str, tmp_path: Path) -> None:
    environ = orchctl.environment(tmp_path, real)
    manifest = HELLO.replace("NAMESPACE", "changes")
    orchctl.run(environ, "apply", "-f", "-", "--detach", stdin=manifest)
    changed = manifest.replace('A: "1"', 'A: "2"')
    result = orchctl.run(environ, "apply", "-f", "-", "--dry-run", stdin=changed)
    assert result.out.splitlines()[0] == "service/hello changed (dry run)"
    assert '-        A: "1"\n+        A: "2"\n' in result.out
    result = orchctl.run(environ, "apply", "-f", "-", "--detach", stdin=changed)
    assert "  spec.template.container.env.A:" in result.out
