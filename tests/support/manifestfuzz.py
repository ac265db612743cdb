"""Hostile manifests: what YAML can do to whoever reads it, and what people would never write, as hypothesis draws it.

The promise under test: whatever the bytes, `orchctl apply`'s reader gives objects or an `InvalidManifest` whose every
mistake is one printable line with a place, at no more cost than the bounds in `documents` allow.
"""

import string
import time
import unicodedata
from collections.abc import Callable

from hypothesis import strategies as st

from manifests import reader
from tests.support import samples

_MOVE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURN = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Categories of characters that move a cursor or end a line, and characters that turn it around."""
MOST_S = 20.0
"""For one source. The largest take a second on a quiet machine."""

_WORDS = st.sampled_from(
    (
        *(
            "kind",
            "Service",
            "Network",
            "List",
            "items",
            "meta",
            "name",
            "spec",
            "template",
            "container",
            "image",
            "ports",
        ),
        *("replicas", "env", "update", "placement", "hello:1", "x-", "apiVersion", "orch/v1", "status", "labels", "<<"),
        *("~", "null", "yes", "no", "0777", "1e9", "-1", ".inf", ".nan", "9" * 400, "2026-01-01", "=", "1_000", "0x7f"),
        *("!!python/object/apply:os.system [id]", "!!binary aGVsbG8=", "!x y", "!!set {a, b}", "!!int a", "!<tag:x> y"),
        *("&a", "*a", "&a *a", "*nobody", "\ufeff", "\u202e", "\x00", "\x85", "\u2028", "\U0001f600", "\t", "${X}"),
        *(
            "%YAML 9.9",
            "%TAG ! tag:x,2000:",
            "---",
            "...",
            "? a",
            "? [a, b]",
            "- - -",
            "|",
            ">-",
            "#",
            "'",
            '"',
            "@",
            "`",
        ),
    )
)
_SCALARS = _WORDS | st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)


def _flow(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Lists and mappings in one line; keys come twice, and values are anchors and aliases of others."""
    return (
        st.lists(children, max_size=5).map(lambda parts: "[" + ", ".join(parts) + "]")
        | st.lists(st.tuples(_SCALARS, children), max_size=5).map(_mapping)
        | children.map(lambda part: f"&a {part}")
    )


def _mapping(parts: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts) + "}"


_TREES = st.recursive(_SCALARS, _flow, max_leaves=15)
_LINES = st.lists(st.tuples(st.integers(0, 6), _SCALARS, _TREES), max_size=12).map(
    lambda lines: "".join(f"{' ' * 2 * depth}{key}: {value}\n" for depth, key, value in lines)
)
_HEAD = "kind: Service\nmeta: {name: a}\nspec:\n"


def _changed(parts: tuple[int, int, str]) -> str:
    """A manifest that is good but for one place."""
    start, length, text = parts
    manifest = samples.HELLO_MANIFEST
    place = start % len(manifest)
    return manifest[:place] + text + manifest[place + length :]


def _filled(parts: tuple[str, str, str, str, str]) -> str:
    """Of the right shape, whatever stands in it."""
    name, replicas, image, key, value = parts
    return (
        f"kind: Service\nmeta: {{name: {name}, labels: {{{key}: {value}}}}}\nspec:\n  replicas: {replicas}\n"
        f"  template: {{container: {{image: {image}, env: {{{key}: {value}}}, command: [{value}]}}}}\n"
    )


def _mostly(*good: str) -> st.SearchStrategy[str]:
    return st.sampled_from(good * 5 + ("",)).flatmap(lambda text: st.just(text) if text else _SCALARS)


_FILLED = st.tuples(
    _mostly("a", "web", '"b"', "x-1"),
    _mostly("0", "3", '"3"', "0x3"),
    _mostly("hello:1", '"hello@sha256:' + "a" * 64 + '"'),
    _mostly("A", "B_1"),
    _mostly('"x"', "é", '"\\u202e"', "1", '""'),
).map(_filled)
_GOOD_BUT_ONE = st.tuples(st.integers(0, 500), st.integers(0, 12), _SCALARS | _TREES).map(_changed)


def _laughs(parts: tuple[int, int]) -> str:
    """Aliases of aliases: 9 levels of 9 are 387 million nodes."""
    levels, width = parts
    lines = ["x-0: &a0 [x]"]
    lines += [f"x-{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join([*lines, f"kind: *a{levels - 1}", ""])


def _merges(parts: tuple[int, int]) -> str:
    """Mappings that merge those before them."""
    levels, width = parts
    lines = ["x-0: &a0 {" + ", ".join(f"k{number}: v" for number in range(width)) + "}"]
    lines += [f"x-{level}: &a{level} {{<<: [*a{level - 1}, *a{level - 1}], l{level}: v}}" for level in range(1, levels)]
    return "\n".join([*lines, f"meta: *a{levels - 1}", "kind: Service", ""])


_SIZES = st.tuples(st.integers(2, 30), st.integers(1, 12))


def _repeated(parts: tuple[str, int]) -> str:
    return parts[0] * parts[1]


_BEGINNINGS = ("[", "{a: ", "- ", "? ", "&a [", "!!seq [", "a:\n", "'", "|\n ")
_REPEATED = ("---\n", "a: b\n", "- x\n", "&a x: *a\n", "kind: Service\n", "? x\n")
_LONG = st.tuples(st.sampled_from(_BEGINNINGS + _REPEATED), st.integers(1, 20_000)).map(
    lambda parts: parts[0] * parts[1]
)
_DIGITS = st.text(string.digits + "-+.eE_xm", max_size=40)
_NUMBERS = st.tuples(st.sampled_from(("replicas", "updat", "template", "mode")), _DIGITS).map(
    lambda parts: f"{_HEAD}  {parts[0]}: {parts[1]}\n"
)

_TEXTS = st.one_of(
    _FILLED,
    _FILLED,
    _FILLED,
    _GOOD_BUT_ONE,
    _GOOD_BUT_ONE,
    _LINES,
    _TREES,
    st.lists(_GOOD_BUT_ONE, max_size=3).map("---\n".join),
    _NUMBERS,
    _SIZES.map(_laughs),
    _SIZES.map(_merges),
)
_ENCODED = _TEXTS.map(lambda text: text.encode(errors="surrogatepass"))
SOURCES: st.SearchStrategy[bytes] = st.one_of(
    _ENCODED,
    _ENCODED,
    _ENCODED,
    st.binary(max_size=200),
    _TEXTS.map(lambda text: text.encode("utf-16", errors="surrogatepass")),
    st.tuples(_ENCODED, st.binary(max_size=5)).map(lambda parts: parts[0] + parts[1]),
)
HUGE: st.SearchStrategy[bytes] = st.one_of(_LONG, _SIZES.map(_laughs)).map(str.encode)
"""Slower ones."""


def check(data: bytes, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether it is read. Raises AssertionError with what came out wrong."""
    began = clock()
    try:
        read = reader.read([reader.Source(name="case.yaml", text=data)])
    except reader.InvalidManifest as error:
        for mistake in error.mistakes:
            line = str(mistake)
            moved = [sign for sign in line if sign in _TURN or unicodedata.category(sign) in _MOVE]
            assert not moved, f"not one plain line: {line!a}"
            assert "case.yaml" in line, f"does not say where: {line}"
            assert len(line) < 2_000, f"{len(line)} characters long"
        return False
    finally:
        took_s = clock() - began
        assert took_s < MOST_S, f"took {took_s:.1f} s"
    for one in read.objects:
        assert one.ByteSize() <= 64 * max(1_000, len(data)), f"{one.ByteSize()} bytes out of {len(data)}"
    return True
