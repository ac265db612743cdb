"""Instructions: what Docker's reference says of each becomes a value, and what it forbids one clear sentence."""

from __future__ import annotations

from typing import TypeVar

import pytest

from images import errors
from images.build import dockerfile, instructions
from tests.support import dockerfiles

_Kind = TypeVar("_Kind")


def _one(text: str, kind: type[_Kind]) -> _Kind:
    """The only instruction of a stage."""
    (found,) = dockerfile.parse(f"FROM a\n{text}\n".encode()).stages[0].instructions
    assert isinstance(found, kind)
    return found


@pytest.mark.parametrize(
    ("text", "image", "name", "platform"),
    [
        ("FROM a", "a", "", ""),
        ("FROM scratch", "scratch", "", ""),
        ("FROM host:5000/a/b:c@sha256:d AS x", "host:5000/a/b:c@sha256:d", "x", ""),
        ("from a as Build-1.x_y", "a", "build-1.x_y", ""),
        ("FROM --platform=linux/arm64 a aS b", "a", "b", "linux/arm64"),
        ("FROM --platform=$BUILDPLATFORM ${a:-b}", "${a:-b}", "", "$BUILDPLATFORM"),
    ],
)
def test_from(text: str, image: str, name: str, platform: str) -> None:
    origin = dockerfile.parse(text.encode()).stages[0].origin
    assert (origin.image, origin.name, origin.platform) == (image, name, platform)


def test_args_before_the_first_from_are_the_files_own() -> None:
    found = dockerfile.parse(b"ARG a=1\nARG b c=2\nFROM x\nARG d\nFROM y AS two\nUSER u")
    assert [arg.variables for arg in found.globals] == [(("a", "1"),), (("b", None), ("c", "2"))]
    assert [(stage.index, stage.name, len(stage.instructions)) for stage in found.stages] == [(0, "", 1), (1, "two", 1)]


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("ARG a", (("a", None),)),
        ("ARG a=", (("a", ""),)),
        ("ARG a=b=c", (("a", "b=c"),)),
        ("ARG a=1 b c='x y'", (("a", "1"), ("b", None), ("c", "'x y'"))),
    ],
)
def test_arg(text: str, variables: tuple[tuple[str, str | None], ...]) -> None:
    assert _one(text, instructions.Arg).variables == variables


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("ENV a b", (("a", "b"),)),
        ("ENV a  b  c=d ", (("a", "b  c=d"),)),
        ("ENV a=b", (("a", "b"),)),
        ("ENV a=", (("a", ""),)),
        ("ENV a=b c=d", (("a", "b"), ("c", "d"))),
        ("ENV a=\"b c\" d='e f' g=h\\ i", (("a", '"b c"'), ("d", "'e f'"), ("g", "h\\ i"))),
        ('ENV a="b\\"c" d=e', (("a", '"b\\"c"'), ("d", "e"))),
        ("ENV a='b\\' c=d", (("a", "'b\\'"), ("c", "d"))),
        ("ENV a=b\\\n  c=d", (("a", "b"), ("c", "d"))),
        ('ENV a="b \\\n c" d=e', (("a", '"b  c"'), ("d", "e"))),
        ("ENV a=${b:-c}", (("a", "${b:-c}"),)),
        ("ENV a=b=c", (("a", "b=c"),)),
    ],
)
def test_env_in_both_forms(text: str, variables: tuple[tuple[str, str], ...]) -> None:
    assert _one(text, instructions.Env).variables == variables
    label = text.replace("ENV", "LABEL")
    assert _one(label, instructions.Label).labels == variables


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("echo a && b", (), "echo a && b"),
        ('["a", "b c"]', ("a", "b c"), ""),
        ('  [ "a" , "\\u00e9" ] ', ("a", "é"), ""),
        ("['a']", (), "['a']"),
        ('["a"', (), '["a"'),
        ('["a"] && b', (), '["a"] && b'),
        ("[ -f x ] && y", (), "[ -f x ] && y"),
        ('["a",]', (), '["a",]'),
        ("[NaN]", (), "[NaN]"),
        ('["\\ud800"]', ("\N{REPLACEMENT CHARACTER}",), ""),
        ("[" * 100_000, (), "[" * 100_000),
    ],
)
def test_what_is_no_json_array_is_the_shell_form(text: str, words: tuple[str, ...], line: str) -> None:
    for command in (
        _one(f"RUN {text}", instructions.Run).command,
        _one(f"CMD {text}", instructions.Cmd).command,
        _one(f"ENTRYPOINT {text}", instructions.Entrypoint).command,
    ):
        assert (command.words, command.line, command.is_shell) == (words, line, bool(line))


def test_an_empty_array_is_no_command() -> None:
    command = _one("CMD []", instructions.Cmd).command
    assert (command.words, command.line, command.is_shell) == ((), "", False)


def test_two_dashes_end_the_flags() -> None:
    assert _one("CMD -- --help", instructions.Cmd).command.line == "--help"


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("type=bind,source=s,target=/t", {"type": "bind", "source": "s", "target": "/t"}),
        ("target=/t", {"type": "bind", "target": "/t", "writable": False}),
        ("type=bind,src=s,dst=/t,rw", {"source": "s", "target": "/t", "writable": True}),
        ("destination=/t,readwrite=false", {"target": "/t", "writable": False}),
        ("from=x,target=/t", {"from_": "x", "target": "/t"}),
        ("type=cache,target=/t", {"type": "cache", "writable": True, "sharing": "shared", "id": ""}),
        ("type=cache,target=/t,ro,id=i,sharing=locked", {"writable": False, "id": "i", "sharing": "locked"}),
        ("type=cache,target=/t,mode=0700,uid=1,gid=$g", {"mode": "0700", "uid": "1", "gid": "$g"}),
        ("type=tmpfs,target=/t,size=64m", {"type": "tmpfs", "size": "64m", "writable": True}),
        ("type=secret,id=i", {"type": "secret", "id": "i", "target": "", "required": False}),
        ("type=secret,id=i,env=E,required", {"env": "E", "required": True}),
        ("type=secret,id=i,required=false,mode=400", {"required": False, "mode": "400"}),
        ("type=secret,src=i,target=/t", {"id": "i", "source": "", "target": "/t"}),
        ("TYPE=Tmpfs,target=/t", {"type": "tmpfs"}),
    ],
)
def test_mounts(flag: str, expected: dict[str, object]) -> None:
    (mount,) = _one(f"RUN --mount={flag} a", instructions.Run).mounts
    assert {name: getattr(mount, name) for name in expected} == expected


def test_run_takes_several_mounts_and_a_network() -> None:
    run = _one('RUN --mount=target=/a --network=none --mount="target=/b c" x', instructions.Run)
    assert ([mount.target for mount in run.mounts], run.network, run.command.line) == (["/a", "/b c"], "none", "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY a /b", {"sources": ("a",), "target": "/b", "is_add": False}),
        ("ADD a b c/", {"sources": ("a", "b"), "target": "c/", "is_add": True}),
        ('COPY ["a b", "c d"]', {"sources": ("a b",), "target": "c d"}),
        ("COPY --from=x a b", {"from_": "x"}),
        ("COPY --chown=u:g --chmod=u+x,g-w a b", {"chown": "u:g", "chmod": "u+x,g-w"}),
        ("COPY --chown='u:g' -- --a b", {"chown": "u:g", "sources": ("--a",)}),
        ("COPY --link a b", {"link": True}),
        ("COPY --link=false --parents=true a b", {"link": False, "parents": True}),
        ("COPY --exclude=*.a --exclude=b/** a b", {"exclude": ("*.a", "b/**")}),
        ("ADD --checksum=sha256:00 https://x/y z", {"checksum": "sha256:00", "sources": ("https://x/y",)}),
        ("COPY a <<E /x/\nt\nE", {"sources": ("a",), "target": "/x/"}),
        ('COPY ["<<E", "/x/"]', {"sources": ("<<E",), "heredocs": ()}),
        ("COPY a\u00a0b\tc", {"sources": ("a\u00a0b",), "target": "c"}),
    ],
)
def test_copy_and_add(text: str, expected: dict[str, object]) -> None:
    copy = _one(text, instructions.Copy)
    assert {name: getattr(copy, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "kind", "field", "expected"),
    [
        ("WORKDIR /a b", instructions.Workdir, "path", "/a b"),
        ("USER a:b", instructions.User, "user", "a:b"),
        ("EXPOSE 80 53/udp $p", instructions.Expose, "ports", ("80", "53/udp", "$p")),
        ("VOLUME /a /b", instructions.Volume, "paths", ("/a", "/b")),
        ('VOLUME ["/a b"]', instructions.Volume, "paths", ("/a b",)),
        ("STOPSIGNAL $s", instructions.Stopsignal, "signal", "$s"),
        ('SHELL ["/bin/bash", "-c"]', instructions.Shell, "words", ("/bin/bash", "-c")),
        ("MAINTAINER A <a@b>", instructions.Maintainer, "name", "A <a@b>"),
        ("ONBUILD RUN a", instructions.Onbuild, "text", "RUN a"),
        ("OnBuild  copy a b", instructions.Onbuild, "text", "copy a b"),
        ("ONBUILD RUN <<E\na\nE", instructions.Onbuild, "text", "RUN <<E\na\nE"),
        ("HEALTHCHECK NONE", instructions.Healthcheck, "command", None),
        ("HEALTHCHECK cmd a b", instructions.Healthcheck, "command", instructions.Command(line="a b")),
        ('HEALTHCHECK CMD ["a"]', instructions.Healthcheck, "command", instructions.Command(words=("a",))),
        ("HEALTHCHECK --interval=1m30s CMD a", instructions.Healthcheck, "interval_ns", 90_000_000_000),
        ("HEALTHCHECK --timeout=500ms CMD a", instructions.Healthcheck, "timeout_ns", 500_000_000),
        ("HEALTHCHECK --start-period=0 CMD a", instructions.Healthcheck, "start_period_ns", 0),
        ("HEALTHCHECK --start-interval=1s CMD a", instructions.Healthcheck, "start_interval_ns", 1_000_000_000),
        ("HEALTHCHECK --retries=5 CMD a", instructions.Healthcheck, "retries", 5),
    ],
)
def test_the_other_instructions(text: str, kind: type[object], field: str, expected: object) -> None:
    assert getattr(_one(text, kind), field) == expected


def test_a_trigger_is_read_back_as_it_was_written() -> None:
    """What goes into the image's configuration is what another build reads out of it."""
    written = _one("ONBUILD RUN cat <<E\na\nE", instructions.Onbuild)
    again = dockerfile.trigger(written.text, image="base")
    assert isinstance(again, instructions.Run)
    assert isinstance(written.instruction, instructions.Run)
    assert again.command == written.instruction.command
    assert str(again.place) == "ONBUILD of base:1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("RUM a", "Dockerfile:2: RUM: there is no instruction RUM; did you mean RUN?"),
        ("XYZZY", "there is no instruction XYZZY; there are ADD, ARG, CMD"),
        ("FROM", "FROM: write FROM IMAGE, or FROM IMAGE AS NAME"),
        ("FROM a b", "write FROM IMAGE, or FROM IMAGE AS NAME"),
        ("FROM a IS b", "write FROM IMAGE, or FROM IMAGE AS NAME"),
        ("FROM a AS 1x", "1x is no name for a stage; begin with a letter"),
        ("FROM --platfrom=x a", "unknown flag --platfrom; did you mean --platform?"),
        ("RUN", "there is nothing to run"),
        ("RUN --mount=target=/x", "there is nothing to run"),
        ("RUN [1]", "the JSON form holds texts only"),
        ("RUN [null]", "the JSON form holds texts only"),
        ('RUN ["a\\u0000"]', "a NUL character in the JSON form; remove it"),
        ("RUN --moutn=x a", "unknown flag --moutn; did you mean --mount?"),
        ("RUN --network=bridge a", "--network=bridge; there are default, host, none"),
        ("RUN --network=non a", "--network=non; did you mean none?"),
        ("RUN --network a", "--network has no value; write --network=VALUE"),
        ("RUN --network=none --network=host a", "--network is given twice; leave one"),
        ("RUN --security=insecure a", "--security is not supported; builds have the limits of any container"),
        ("RUN --device=x a", "--device is not supported"),
        ("RUN --mount=type=ssh a", "--mount=type=ssh is not supported; fetch beforehand"),
        ("RUN --mount=type=bnid,target=/x a", "--mount=type=bnid; did you mean bind?"),
        ("RUN --mount=type=bind a", "--mount=type=bind has no target; write target=/PATH"),
        ("RUN --mount=type=secret a", "--mount=type=secret: which one; write id=NAME"),
        ("RUN --mount=type=secret,id=a,source=b a", "--mount=type=secret: which one; write id=NAME"),
        ("RUN --mount=type=bind,target=/x,sharing=locked a", "sharing is not one of its keys"),
        ("RUN --mount=type=tmpfs,target=/x,size=big a", "'big' is no size; write a number with k, m or g: 64m"),
        ("RUN --mount=type=cache,target=/x,sharing=share a", "sharing=share; did you mean shared?"),
        ("RUN --mount=type=cache,target=/x,uid=me a", "uid=me; write a number"),
        ("RUN --mount=type=cache,target=/x,mode=u+x a", "mode=u+x; write it as a number: 0755"),
        ("RUN --mount=target=/x,rw=maybe a", "rw=maybe; write true or false"),
        ("RUN --mount=target=/x,taget=/y a", "taget is not one of its keys; did you mean target?"),
        ("RUN --mount=target a", "target has no value; write target=VALUE"),
        ("RUN --mount=target=/x,dst=/y a", "target is given twice; leave one"),
        ("RUN --mount=from=$x,target=/x a", "from takes no variables; name a stage: FROM $x AS NAME"),
        ("COPY a", "it needs a source and a target; write COPY SOURCE TARGET"),
        ("ADD", "it needs a source and a target; write ADD SOURCE TARGET"),
        ('COPY ["a", ""]', "it needs a source and a target"),
        ("COPY --from=$x a b", "--from takes no variables; name a stage: FROM $x AS NAME"),
        ("COPY --checksum=x a b", "unknown flag --checksum; there are"),
        ("COPY --link=perhaps a b", "--link=perhaps; write true or false"),
        ("COPY --from= a b", "--from has no value; write --from=VALUE"),
        ("COPY a <<E\nE", "a heredoc cannot be the target"),
        ("COPY <<../e /x/\n../e", "a heredoc's name is that of a file; write <<NAME without slashes"),
        ("COPY <<.. /x/\n..", "a heredoc's name is that of a file"),
        ("COPY << e /x/\ne", "a heredoc's name has no spaces in it or before it; write <<NAME"),
        ("ADD --from=x a b", "--from is not supported; use COPY --from"),
        ("ADD --keep-git-dir a b", "--keep-git-dir is not supported; git repositories are not fetched"),
        ("ENV", "there is nothing to set; write NAME=VALUE"),
        ("ENV a", "a has no value; write a=VALUE"),
        ("ENV a=b c", "c has no '='; write NAME=VALUE"),
        ("ENV =a", "=a has no name; write NAME=VALUE"),
        ("ENV --x a=b", "--x: this instruction has no flags; leave it out"),
        ("CMD --help", "--help: this instruction has no flags; leave it out, or write -- before it"),
        ("FROM a AS scratch", "scratch is the empty image; give the stage another name"),
        ("LABEL a=b c", "c has no '='"),
        ("ARG", "nothing follows it; write ARG NAME or ARG NAME=VALUE"),
        ("ARG =x", "=x has no name; write ARG NAME=VALUE"),
        ("CMD", "there is no command; write one, or CMD [] to have none"),
        ("ENTRYPOINT", "there is no command; write one, or ENTRYPOINT [] to have none"),
        ("SHELL /bin/sh", 'it is written as JSON: SHELL ["/bin/sh", "-c"]'),
        ("SHELL []", "it is written as JSON"),
        ("VOLUME", "nothing follows it; write VOLUME /PATH"),
        ("VOLUME []", "an empty path"),
        ('VOLUME [""]', "an empty path"),
        ("WORKDIR", "nothing follows it; write WORKDIR /PATH"),
        ("USER", "nothing follows it; write USER NAME"),
        ("EXPOSE", "nothing follows it; write EXPOSE 80"),
        ("STOPSIGNAL", "nothing follows it; write STOPSIGNAL SIGTERM"),
        ("MAINTAINER", "nothing follows it; write LABEL maintainer=NAME"),
        ("ONBUILD", "nothing follows it; write ONBUILD and an instruction"),
        ("ONBUILD ONBUILD RUN a", "ONBUILD may not hold ONBUILD, FROM or MAINTAINER"),
        ("ONBUILD FROM a", "ONBUILD may not hold ONBUILD, FROM or MAINTAINER"),
        ("ONBUILD maintainer a", "ONBUILD may not hold ONBUILD, FROM or MAINTAINER"),
        ("ONBUILD RUM a", "there is no instruction RUM; did you mean RUN?"),
        ("HEALTHCHECK", "write HEALTHCHECK CMD and a command, or HEALTHCHECK NONE"),
        ("HEALTHCHECK CMD", "write HEALTHCHECK CMD and a command"),
        ("HEALTHCHECK CMD []", "write HEALTHCHECK CMD and a command"),
        ("HEALTHCHECK curl x", "write HEALTHCHECK CMD and a command"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes nothing"),
        ("HEALTHCHECK --interval=5 CMD a", "--interval: '5' is no time; write numbers with units"),
        ("HEALTHCHECK --timeout=1us CMD a", "--timeout: '1us' is too short; write 1ms or more"),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries: '-1' is no number of tries; write 3"),
        ("HEALTHCHECK --retry=1 CMD a", "unknown flag --retry; did you mean --retries?"),
    ],
)
def test_a_mistake_is_told_with_place_instruction_and_remedy(text: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        dockerfile.parse(f"FROM a\n{text}\n".encode())
    assert complaint in str(raised.value)
    assert str(raised.value).startswith("Dockerfile:2: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "Dockerfile: there is no FROM; begin with FROM IMAGE, or FROM scratch"),
        ("ARG a", "Dockerfile: there is no FROM"),
        ("ARG a\nRUN b\nFROM c", "Dockerfile:2: RUN: it stands before the first FROM, where only ARG may"),
    ],
)
def test_a_file_begins_with_from(text: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        dockerfile.parse(text.encode())
    assert str(raised.value).startswith(complaint)


def test_what_is_out_of_use_is_told_and_built() -> None:
    found = dockerfile.parse(b"FROM a AS x\nMAINTAINER b\nFROM c AS X")
    assert [warning.partition(";")[0] for warning in found.warnings] == [
        "Dockerfile:2: MAINTAINER is out of use",
        "Dockerfile:3: a second stage x",
    ]


@pytest.mark.parametrize("case", [case for case in dockerfiles.cases() if not case.fails], ids=lambda case: case.name)
def test_every_dockerfile_of_the_corpus_is_read(case: dockerfiles.Case) -> None:
    found = dockerfile.parse(case.dockerfile.read_bytes(), name=case.name)
    assert found.stages
