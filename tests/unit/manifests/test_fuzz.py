"""Whatever is in a file, reading it ends in objects or in mistakes with a place inside the file."""

import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

import manifests

EXAMPLES = {
    path.name: path.read_bytes() for path in sorted((Path(manifests.__file__).parent / "examples").glob("*.yaml"))
}
PIECES = [
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!x ",
    b"- ",
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"'",
    b'"',
    b"|",
    b"\n",
    b"\t",
    b"\xff",
]
PIECES += [
    b"~",
    b"0777",
    b"#",
    b"---\n",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\r",
    b"kind: List\n",
    b"? ",
    b"%YAML 1.2\n",
    b"\\",
]


def check(text: bytes) -> None:
    """Reads a text, and whatever is read or refused is sound."""
    lines = text.count(b"\n") + text.count(b"\r") + 2
    try:
        manifest = manifests.read([manifests.Source(name="fuzz.yaml", text=text)])
    except manifests.InvalidManifest as invalid:
        for mistake in invalid.mistakes:
            assert mistake.file == "fuzz.yaml"
            assert 1 <= mistake.line <= lines
            assert 1 <= mistake.column <= len(text) + 2
            assert mistake.message
            assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", str(mistake)), f"not one line: {mistake!r}"
    else:
        for value in manifest.objects:
            assert manifests.validate(value) == ()


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(sorted(EXAMPLES)), data=st.data())
def test_examples_with_a_slip_of_the_hand(name: str, data: st.DataObject) -> None:
    text = EXAMPLES[name]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 8)))
        piece = data.draw(st.sampled_from([b"", *PIECES]) | st.binary(max_size=3))
        text = text[:start] + piece + text[end:]
    check(text)


@settings(deadline=None, max_examples=100)
@given(
    pieces=st.lists(
        st.sampled_from([*PIECES, b"a", b"1", b"kind: Service\n", b"meta: {name: a}\n", b"  "]), max_size=40
    )
)
@example(pieces=[b"kind: List\n", b"a\tb", b": "])
@example(pieces=[b"? ", b"- a"])
@example(pieces=[b"kind: Service\n", b"? ", b"[", b"]"])
def test_shreds_of_yaml(pieces: list[bytes]) -> None:
    check(b"".join(pieces))


@settings(deadline=None, max_examples=100)
@given(text=st.binary(max_size=60))
def test_any_bytes(text: bytes) -> None:
    check(text)
