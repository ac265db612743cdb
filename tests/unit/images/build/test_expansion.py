"""Variables: what stands in the reference is replaced, where it stands in the reference, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import errors
from images.build import dockerfile, expansion, instructions, patterns, variables

VALUES = {"v": "a/b/c.tar.gz", "e": "", "two": "x  y", "dot": ".", "ümlaut": "u", "_u1": "under", "star": "a*b"}
PLACE = instructions.Place(file="Dockerfile", line=2, text="ENV x")


def _expand(text: str, *, escape: str = "\\") -> str:
    return expansion.expand(text, VALUES, escape=escape, place=PLACE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("$v", "a/b/c.tar.gz"),
        ("${v}x", "a/b/c.tar.gzx"),
        ("$v.x", "a/b/c.tar.gz.x"),
        ("$none.", "."),
        ("$ümlaut$_u1", "uunder"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$/", "$/"),
        ("$1$@", ""),
        ("${none:-w}", "w"),
        ("${e:-w}", "w"),
        ("${v:-w}", "a/b/c.tar.gz"),
        ("${none-w}", "w"),
        ("${e-w}", ""),
        ("${none:+w}", ""),
        ("${e:+w}", ""),
        ("${v:+w}", "w"),
        ("${none+w}", ""),
        ("${e+w}", "w"),
        ("${v:?w}", "a/b/c.tar.gz"),
        ("${e?w}", ""),
        ("${none:-${none:-$_u1}}", "under"),
        ("${none:-a b}", "a b"),
        ("${none:-'}'}", "}"),
        ("${none:-\\}}", "}"),
        ('${none:-"a}b"}', "a}b"),
        ("${v#a}", "/b/c.tar.gz"),
        ("${v#*/}", "b/c.tar.gz"),
        ("${v##*/}", "c.tar.gz"),
        ("${v%.*}", "a/b/c.tar"),
        ("${v%%.*}", "a/b/c"),
        ("${v%x}", "a/b/c.tar.gz"),
        ("${v%$dot*}", "a/b/c.tar"),
        ("${v/a/A}", "A/b/c.tAr.gz".replace("tAr", "tar")),
        ("${v//a/A}", "A/b/c.tAr.gz"),
        ("${v//\\//-}", "a-b-c.tar.gz"),
        ("${v/b*r/}", "a/.gz"),
        ("${v/?/$_u1}", "under/b/c.tar.gz"),
        ("${v//x/y}", "a/b/c.tar.gz"),
        ("${star/\\*/-}", "a-b"),
        ("${star%\\**}", "a"),
        ("${star#?\\*}", "b"),
        ("${star/\\?/-}", "a*b"),
        ("${none/a/b}", ""),
        ("'$v'", "$v"),
        ('"$v"', "a/b/c.tar.gz"),
        ("'a\\'", "a\\"),
        ('"a\\"b"', 'a"b'),
        ('"\\$v \\\\ \\n"', "$v \\ \\n"),
        ("\\$v", "$v"),
        ("\\a\\ b", "a b"),
        ("a\\", "a"),
        ("\"a'b\"'c\"d'", "a'bc\"d"),
        ('x"y"z', "xyz"),
    ],
)
def test_variables_quotes_and_escapes(text: str, expected: str) -> None:
    assert _expand(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("C:\\x", "C:\\x"), ("`$v", "$v"), ("\\$e", "\\"), ('"`""', '"'), ("${v//`//-}", "a-b-c.tar.gz")],
)
def test_another_escape_character(text: str, expected: str) -> None:
    assert _expand(text, escape="`") == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("${v", "${v has no '}' at its end; close it"),
        ("${v:-x", "${…} has no '}' at its end"),
        ("${v/x}", "${…} has no '/' at its end"),
        ("${v/x/y", "${…} has no '}' at its end"),
        ("${", "${ without a name after it; write ${NAME}"),
        ("${}", "${ without a name after it"),
        ("${{v}}", "${ without a name after it"),
        ("${:-x}", "${ without a name after it"),
        ("${v^}", "${v^}: after the name may come :- :+ :? - + ? # % / or }"),
        ("${v:x}", "after the name may come"),
        ("${none:?say so}", "none: say so"),
        ("${none:?}", "none: it must be set"),
        ("${e:?}", "e: it must not be empty"),
        ("${none?}", "none: it must be set"),
        ("'a", "a single quote is never closed; close it, or write \\' for the sign"),
        ('"a', 'a double quote is never closed; close it, or write \\" for the sign'),
        ("${v#" + "?" * 300 + "}", "a pattern of more than 256 characters; shorten it"),
        ("${none:-" * 40 + "}" * 40, "${…} inside each other more than 32 deep"),
    ],
)
def test_a_mistake_is_told_with_the_text(text: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        _expand(text)
    assert str(raised.value).startswith("Dockerfile:2: ENV: ")
    assert complaint in str(raised.value)


def test_what_comes_out_is_bounded() -> None:
    """Ten lines that double a variable are a thousand times as much; no program could be given it."""
    with pytest.raises(errors.InvalidDockerfile, match="characters come out of it; shorten its variables"):
        expansion.expand("$a$a", {"a": "x" * 100_000}, place=PLACE)
    nested = "${a:+" * 30 + "$a$a" + "}" * 30
    with pytest.raises(errors.InvalidDockerfile, match="characters come out of it"):
        expansion.expand(nested, {"a": "x" * 70_000}, place=PLACE)


class _Counting(dict[str, str]):
    """Variables that count how often they are asked for."""

    asked = 0

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked += 1
        return super().get(name, default)


def test_what_is_too_long_is_not_put_together_first() -> None:
    """A hundred kilobytes of `$a` would be gigabytes before anybody looks at them."""
    values = _Counting(a="x" * variables.MAX_LENGTH)
    with pytest.raises(errors.InvalidDockerfile, match="characters come out of it"):
        expansion.expand("${none:+" + "$a" * 50_000 + "}", values, place=PLACE)
    assert values.asked < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a b", ("a", "b")),
        ("  a\tb ", ("a", "b")),
        ("$two", ("x", "y")),
        ("a$two", ("ax", "y")),
        ("${two}b", ("x", "yb")),
        ('"$two"', ("x  y",)),
        ('a"b c"d', ("ab cd",)),
        ("a\\ b c", ("a b", "c")),
        ("$e", ()),
        ('""', ()),
        ("$none a", ("a",)),
        ("a$e b", ("a", "b")),
        ("a $two b", ("a", "x", "y", "b")),
    ],
)
def test_words_are_divided_after_variables_are_replaced(text: str, expected: tuple[str, ...]) -> None:
    assert expansion.words(text, VALUES, place=PLACE) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a '$e' \"$_u1\"\n", "a '' \"under\"\n"),
        ("\\$v \\\\ it's\n", "$v \\ it's\n"),
        ("${none:-d}\n\n", "d\n\n"),
    ],
)
def test_a_heredoc_keeps_its_quotes(text: str, expected: str) -> None:
    assert expansion.content(text, VALUES, place=PLACE) == expected


# What `x=/opt y="1 2"` makes of each instruction; those without variables in them are the same before and after.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ENV a=$x $x=b", {"variables": (("a", "/opt"), ("/opt", "b"))}),
        ("ENV a=\"$x $y\" b='$x'", {"variables": (("a", "/opt 1 2"), ("b", "$x"))}),
        ("ENV a $x b", {"variables": (("a", "/opt b"),)}),
        ("LABEL $x=$y", {"labels": (("/opt", "1 2"),)}),
        ("ARG a=$x b", {"variables": (("a", "/opt"), ("b", None))}),
        ("COPY $x a $x/b", {"sources": ("/opt", "a"), "target": "/opt/b"}),
        ('COPY ["$x a", "b"]', {"sources": ("/opt a",)}),
        ("COPY --chown=$x:$x a b", {"chown": "/opt:/opt"}),
        ("COPY --chmod=${m:-755} a b", {"chmod": "755"}),
        ("COPY --exclude=$x/* a b", {"exclude": ("/opt/*",)}),
        ("ADD --checksum=sha256:$n https://a/$x b", {"checksum": "sha256:", "sources": ("https://a//opt",)}),
        ("COPY <<e /x\n$x\ne", {"heredocs": (instructions.Heredoc(name="e", content="/opt\n", expands=True),)}),
        ("COPY <<'e' /x\n$x\ne", {"heredocs": (instructions.Heredoc(name="e", content="$x\n", expands=False),)}),
        ("WORKDIR $x/y", {"path": "/opt/y"}),
        ('WORKDIR "a b"', {"path": "a b"}),
        ("USER ${u:-app}:$g", {"user": "app:"}),
        ("VOLUME $x /y", {"paths": ("/opt", "/y")}),
        ("STOPSIGNAL ${s:-SIGINT}", {"signal": "SIGINT"}),
        ("EXPOSE 80 $y 5-7/udp", {"ports": ("80/tcp", "1/tcp", "2/tcp", "5/udp", "6/udp", "7/udp")}),
        ("EXPOSE 80 80/TCP", {"ports": ("80/tcp",)}),
    ],
)
def test_the_table_of_the_reference(text: str, expected: dict[str, object]) -> None:
    values = {"x": "/opt", "y": "1 2"}
    instruction = dockerfile.parse(f"FROM a\n{text}\n".encode()).stages[0].instructions[0]
    found = expansion.expanded(instruction, values)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        "RUN echo $x '${y' \\$z",
        'RUN ["echo", "$x"]',
        "RUN <<e\n$x\ne",
        "CMD $x",
        'CMD ["$x"]',
        "ENTRYPOINT $x",
        "HEALTHCHECK CMD $x",
        'SHELL ["$x"]',
        "MAINTAINER $x",
        "ONBUILD ENV a=$x",
    ],
)
def test_what_the_reference_leaves_alone(text: str) -> None:
    instruction = dockerfile.parse(f"FROM a\n{text}\n".encode()).stages[0].instructions[0]
    assert expansion.expanded(instruction, {"x": "replaced"}) == instruction


def test_mounts_are_replaced_beside_a_command_that_is_not() -> None:
    text = b"FROM a\nRUN --mount=type=cache,target=$x/c,id=i-$y,uid=$n,from=z echo $x"
    run = expansion.expanded(dockerfile.parse(text).stages[0].instructions[0], {"x": "/opt", "y": "1", "n": "7"})
    assert isinstance(run, instructions.Run)
    (mount,) = run.mounts
    assert (mount.target, mount.id, mount.uid, mount.from_) == ("/opt/c", "i-1", "7", "z")
    assert run.command.line == "echo $x"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("STOPSIGNAL $x", "STOPSIGNAL: '' is no signal; write a name or a number"),
        ("EXPOSE 70000", "EXPOSE: '70000': ports go from 1 to 65535"),
        ("EXPOSE ${x:-a}", "'a' is no port; write 80, 53/udp or 8000-8010/tcp"),
        ("COPY --chmod=${x:-7z} a b", "--chmod=7z: '7z' is no mode"),
        ("VOLUME $x", "a path comes to nothing; give its variable a value"),
        ("ENV $x=a", "a name comes to nothing; give its variable a value"),
        ("RUN --mount=type=cache,target=/x,uid=${x:-me} a", "uid=me; write a number"),
        ("ADD ${x:-git@host:a.git} b", "git repositories are not fetched; clone it beforehand"),
        ("ADD https://host/a.git#main b", "git repositories are not fetched"),
        ("COPY <<e /x\n${x\ne", "${x"),
        ("COPY [a b", "COPY: '[a' is no pattern; write [[] for a bracket"),
        ("COPY a${x:-[/}b c", "'a[' is no pattern"),
    ],
)
def test_what_only_the_values_show_is_told_too(text: str, complaint: str) -> None:
    instruction = dockerfile.parse(f"FROM a\n{text}\n".encode()).stages[0].instructions[0]
    with pytest.raises(errors.InvalidDockerfile) as raised:
        expansion.expanded(instruction, {})
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY $vresion b", ("Dockerfile:2: COPY: $vresion is not set; did you mean $version?",)),
        ("ENV a=${b}x", ("Dockerfile:2: ENV: $b is not set; write ARG b before it, or ${b:-} if that is meant",)),
        ("ENV a=$b$b c=$d", ("$b is not set", "$d is not set")),
        ("ENV a=${b:-$c} d=${e:-}", ("$c is not set",)),
        ("ENV a=${b-x} c=${d:+x} e=${f#x} g=$version h='$i' j=\\$k", ()),
        ("RUN --mount=target=/x/$a $b", ("$a is not set",)),
        ("EXPOSE 80 $p", ("$p is not set",)),
        ("COPY <<e /x\n$a\ne", ("$a is not set",)),
        ("ENV a=$1 b=$$", ()),
        ("ENV a=$known", ()),
        ("CMD $a", ()),
    ],
)
def test_a_variable_that_nobody_has_set_is_told(text: str, expected: tuple[str, ...]) -> None:
    instruction = dockerfile.parse(f"FROM a\n{text}\n".encode()).stages[0].instructions[0]
    found = expansion.unset(instruction, {"version": "1"}, declared={"known"})
    assert len(found) == len(expected)
    assert [told for told, part in zip(found, expected, strict=True) if part not in told] == []


def test_a_base_that_comes_to_nothing_is_told() -> None:
    origin = dockerfile.parse(b"FROM --platform=$p $base").stages[0].origin
    found = expansion.origin(origin, {"base": "a:1", "p": "linux/arm64"})
    assert (found.image, found.platform) == ("a:1", "linux/arm64")
    with pytest.raises(errors.InvalidDockerfile, match="base comes to nothing; give its ARG before the first FROM"):
        expansion.origin(origin, {})


_LETTERS = st.text(alphabet="ab.", max_size=8)
_PATTERNS = st.text(alphabet="ab.*?", min_size=1, max_size=6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(_LETTERS, _PATTERNS), min_size=25, max_size=25))
def test_patterns_mean_what_bash_says(cases: list[tuple[str, str]]) -> None:
    """Bash is the judge of prefixes, suffixes and replacements."""
    bash = shutil.which("bash")
    assert bash, "bash is on every machine that builds this"
    script = "for ((i = 0; i < $#; i += 2)); do v=${@:i+1:1} p=${@:i+2:1}\n"
    script += 'printf \'%s\\n\' "${v#$p}" "${v##$p}" "${v%$p}" "${v%%$p}" "${v/$p/-}" "${v//$p/-}"; done'
    words = [word for case in cases for word in case]
    told = subprocess.run([bash, "-c", script, "bash", *words], capture_output=True, text=True, timeout=30, check=True)
    assert [line for case in cases for line in _six(*case)] == told.stdout.split("\n")[:-1]


def _six(value: str, text: str) -> list[str]:
    pattern = patterns.parse(text)
    return [
        patterns.without_prefix(value, pattern, longest=False),
        patterns.without_prefix(value, pattern, longest=True),
        patterns.without_suffix(value, pattern, longest=False),
        patterns.without_suffix(value, pattern, longest=True),
        patterns.replaced(value, pattern, "-", everywhere=False),
        patterns.replaced(value, pattern, "-", everywhere=True),
    ]


@given(st.text(max_size=60))
def test_a_quoted_text_comes_back(text: str) -> None:
    """Whatever a text holds, there is a way to write it: in single quotes, and escaped letter by letter."""
    quoted = "'" + text.replace("'", "'\\''") + "'"
    escaped = "".join(f"\\{letter}" for letter in text)
    doubled = '"' + "".join(f"\\{letter}" if letter in '"$\\' else letter for letter in text) + '"'
    for written in (quoted, escaped, doubled):
        assert expansion.expand(written, VALUES, place=PLACE) == text
        assert expansion.words(written, VALUES, place=PLACE) == ((text,) if text else ())


@given(st.text(alphabet="a$v{}:-+?#%/*'\"\\ `", max_size=40), st.sampled_from("\\`"))
def test_no_text_is_more_than_a_value_or_a_mistake(text: str, escape: str) -> None:
    try:
        found = "".join(piece for piece, _ in variables.pieces(text, VALUES, escape=escape))
    except ValueError as error:
        found = str(error)
    assert len(found) < 2000
