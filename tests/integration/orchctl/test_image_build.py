"""`orchctl image build`: the real program, from a Dockerfile to an image in the store."""

import io
import os
import pty
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import building, orchctl, registry
from tests.support.orchctl import Result

pytestmark = pytest.mark.root
Build = Callable[..., Result]
DOCKERFILE = "FROM localhost/base\nARG WHO=world\nCOPY f /f\nRUN echo hello $WHO && echo $WHO > /who\n"


@pytest.fixture
def bench(tmp_path: Path) -> building.Bench:
    made = building.Bench(tmp_path / "b")
    made.add_base()
    return made


@pytest.fixture
def environ(tmp_path: Path, bench: building.Bench) -> dict[str, str]:
    return {**orchctl.environment(tmp_path, "127.0.0.1:1"), "ORCH_IMAGE_STORE": str(bench.store.root)}


@pytest.fixture
def build(environ: dict[str, str], bench: building.Bench) -> Build:
    state = ("--state", str(bench.area))

    def run(*arguments: str | Path, stdin: bytes = b"", **variables: str) -> Result:
        return orchctl.run({**environ, **variables}, "image", "build", *state, *map(str, arguments), stdin=stdin)

    return run


@pytest.fixture
def context(bench: building.Bench) -> Path:
    return bench.context({"Dockerfile": DOCKERFILE, "f": "x"})


def test_steps_are_told_on_standard_error_and_the_image_on_standard_output(build: Build, context: Path) -> None:
    first = build("-t", "web:1", "-t", "web:latest", context)
    assert first.code == 0, first.err
    assert "[stage-0 3/4] COPY f /f\n" in first.err
    assert "#4 hello world\n#4 done in " in first.err
    digest = first.out.split("(")[1][:12]
    assert [line.split(" (")[0] for line in first.out.splitlines()] == ["image/web:1 built", "image/web:latest built"]
    second = build("-t", "web:1", context)
    assert second.err.count("CACHED") == 2
    assert digest in second.out


def test_a_dockerfile_from_standard_input_is_read_whole_or_refused(build: Build, context: Path) -> None:
    """Never without its end, which may be the stage that was meant."""
    comment = b"# " + b"x" * 1021 + b"\n"
    text = b"FROM scratch\n" + comment * 1200 + b"FROM localhost/base\n"
    found = build("-f", "-", context, stdin=text)
    assert found.code != 0
    assert "larger than 1048576 bytes" in found.err
    assert build("-f", "-", context, stdin=text.replace(comment * 1200, comment * 1000)).code == 0


def test_quiet_prints_the_digest_alone(build: Build, context: Path, bench: building.Bench, tmp_path: Path) -> None:
    done = build("-q", "--iidfile", tmp_path / "id", "--build-arg", "WHO", context, WHO="me")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip() == (tmp_path / "id").read_text()
    image = bench.store.resolve(done.out.strip())
    assert bench.read(image, "/who") == "me\n"


def test_a_failed_step_ends_with_one_line_that_names_it(build: Build, context: Path) -> None:
    (context / "Dockerfile").write_text(f"{DOCKERFILE}RUN echo almost; exit 3\n")
    done = build("-t", "web", context)
    assert (done.code, done.out) == (1, "")
    assert "#5 almost\n" in done.err
    assert done.err.endswith("orchctl: Dockerfile:5: RUN: ended with exit code 3\n")
    quiet = build("-q", context)
    assert quiet.err == "  almost\norchctl: Dockerfile:5: RUN: ended with exit code 3\n"


def test_the_context_may_come_through_a_pipe(build: Build, context: Path, bench: building.Bench) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as file:
        file.add(context, ".")
    assert build("-t", "piped", "-", stdin=sink.getvalue()).code == 0
    assert bench.read(bench.store.resolve("piped"), "/f") == "x"


def test_the_dockerfile_may_be_elsewhere(build: Build, context: Path, bench: building.Bench, tmp_path: Path) -> None:
    (tmp_path / "Other").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "Other.dockerignore").write_text("Dockerfile\n")
    assert build("-f", tmp_path / "Other", "-t", "other", context).code == 0
    assert bench.tree(bench.store.resolve("other")).keys() == {"", "f"}
    assert build("-f", "-", "-t", "stdin", context, stdin=b"FROM scratch\nCOPY f /g\n").code == 0
    assert bench.tree(bench.store.resolve("stdin")).keys() == {"", "g"}


def test_secrets_come_from_files_and_variables(
    build: Build, context: Path, bench: building.Bench, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("one")
    (context / "Dockerfile").write_text(
        "FROM localhost/base\nRUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B"
        " printf '%s %s' $(cat /run/secrets/a) $B | sha256sum > /sum\n"
    )
    done = build(
        "-t", "s", "--secret", f"id=a,src={tmp_path / 'token'}", "--secret", "id=b,env=TWO", context, TWO="two"
    )
    assert done.code == 0, done.err
    expected = subprocess.run(["sha256sum"], input=b"one two", capture_output=True, check=True).stdout.decode()
    assert bench.read(bench.store.resolve("s"), "/sum") == expected


def test_base_images_are_pulled(build: Build, environ: dict[str, str], bench: building.Bench, tmp_path: Path) -> None:
    """From a registry, once; what it does not have is told with the place."""
    with registry.running(tmp_path / "registry") as server:
        name = f"{server.address}/team/base:1"
        bench.store.tag(name, bench.store.resolve(building.BASE).digest)
        assert orchctl.run(environ, "image", "push", name).code == 0
        bench.store.untag(name)
        bench.store.untag(building.BASE)
        bench.store.prune()
        context = bench.context({"Dockerfile": f"FROM {name}\nRUN id > /id\n"})
        done = build("-t", "web", context)
        assert done.code == 0, done.err
        assert bench.read(bench.store.resolve("web"), "/id").startswith("uid=0(root)")
        asked = len(server.requests())
        assert build("-t", "web", context).err.count("CACHED") == 1
        assert len(server.requests()) == asked
        (context / "Dockerfile").write_text(f"FROM {server.address}/team/none\n")
        missing = build(context)
    assert missing.code == 1
    assert "orchctl: Dockerfile:1: FROM: " in missing.err
    assert "team/none" in missing.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ssh", "default"], "--ssh is not supported"),
        (["--secret", "src=x"], "write id=NAME,src=FILE"),
        (["--secret", "id=a,src=/no/where"], "--secret a: /no/where: No such file or directory"),
        (["--secret", "id=NO_SUCH_VARIABLE"], "there is no variable NO_SUCH_VARIABLE"),
        (["--build-arg", "=x"], "write NAME=VALUE"),
        (["--platform", "amd64"], "not a platform"),
        (["-t", "Upper"], "must be lower case"),
        (["--target", "none"], "there is no stage none"),
        (["-f", "/no/where"], "/no/where: No such file or directory"),
    ],
)
def test_wrong_words_are_told_in_one_line(build: Build, context: Path, arguments: list[str], message: str) -> None:
    done = build(*arguments, context)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_terminal_shows_steps_in_place(environ: dict[str, str], bench: building.Bench, context: Path) -> None:
    """What a command says stands below its step while it runs, and is gone when it has ended well."""
    text = in_terminal(environ, "--state", str(bench.area), "-t", "web", str(context))
    assert "\x1b[" in text
    assert "[stage-0 4/4] RUN echo hello $WHO && echo $WHO > /who done in " in text
    assert "image/web built (" in text


def test_a_terminal_tells_steps_that_run_side_by_side_apart(environ: dict[str, str], bench: building.Bench) -> None:
    """Triggers of a base image as well, of which nobody knew when the steps were counted."""
    bench.build("FROM localhost/base\n" + "ONBUILD RUN sleep 0.2; echo trigger\n" * 3, names=("localhost/trigger",))
    stage = "FROM localhost/trigger AS {0}\nRUN for i in 1 2 3; do echo $i; usleep 200000; done\n"
    text = stage.format("one") + stage.format("two") + "FROM scratch\nCOPY --from=one / /\nCOPY --from=two / /\n"
    folder = bench.context({"Dockerfile": text})
    shown = in_terminal(environ, "--state", str(bench.area), "--no-cache", str(folder))
    for label in ("one 1+1/7", "one 1+3/7", "one 2/7", "two 3+3/7", "two 4/7"):
        assert re.search(rf"\[{re.escape(label)}\] RUN .* done in ", shown), label


def in_terminal(environ: dict[str, str], *arguments: str) -> str:
    """What a terminal is sent during a build that ends well."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        orchctl.command("image", "build", *arguments),
        env={**environ, "TERM": "xterm", "COLUMNS": "80"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := _read(ours):
            shown += data
    finally:
        os.close(ours)
    assert process.wait(30) == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""
