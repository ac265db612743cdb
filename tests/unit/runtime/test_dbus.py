"""Messages of D-Bus: against examples worked out by hand from its specification, and back and forth."""

import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import dbus, errors

NUMBERS = {"y": (0, 2**8), "n": (-(2**15), 2**15), "q": (0, 2**16), "i": (-(2**31), 2**31), "u": (0, 2**32)}
NUMBERS |= {"x": (-(2**63), 2**63), "t": (0, 2**64)}


def test_a_call_is_what_the_specification_says() -> None:
    """Hello(), byte by byte: the fixed header, then path, interface and member, each at a multiple of eight."""
    assert dbus.encode_call(1, "/a", "b.c", "D", "", ()) == (
        b"l\x01\x00\x01" + struct.pack("<III", 0, 1, 0x2A)
        # Each field is a struct of a byte and a variant.
        + b"\x01\x01o\x00" + struct.pack("<I", 2) + b"/a\x00" + b"\x00" * 5
        + b"\x02\x01s\x00" + struct.pack("<I", 3) + b"b.c\x00" + b"\x00" * 4
        + b"\x03\x01s\x00" + struct.pack("<I", 1) + b"D\x00"
        + b"\x00" * 6
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        ("b", True, b"\1\0\0\0"),
        ("s", "ab", b"\2\0\0\0ab\0"),
        ("g", "su", b"\2su\0"),
        ("v", ("u", 7), b"\1u\0\0\7\0\0\0"),
        ("au", [1, 2], b"\x08\0\0\0\1\0\0\0\2\0\0\0"),
        ("at", [], b"\0\0\0\0\0\0\0\0"),
        ("at", [1], b"\x08\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0"),
        ("(ys)", (1, ""), b"\1\0\0\0\0\0\0\0\0"),
    ],
)
def test_values_stand_at_their_alignment(kind: str, value: Any, data: bytes) -> None:
    """The length of an array leaves out what aligns its first item."""
    writer = dbus.Writer()
    writer.write(kind, value)
    assert bytes(writer.data) == data
    assert dbus.Reader(data).read(kind) == value


def _typed() -> st.SearchStrategy[tuple[str, Any]]:
    """A type and a value of it."""
    numbers = [st.tuples(st.just(kind), st.integers(low, high - 1)) for kind, (low, high) in NUMBERS.items()]
    text = st.tuples(st.just("s"), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    simple = st.one_of(text, st.tuples(st.just("b"), st.booleans()), *numbers)

    def further(inner: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
        return st.one_of(
            inner.map(lambda pair: ("v", pair)),
            st.tuples(inner, st.integers(0, 3)).map(lambda pair: (f"a{pair[0][0]}", [pair[0][1]] * pair[1])),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda pairs: ("(" + "".join(kind for kind, _ in pairs) + ")", tuple(value for _, value in pairs))
            ),
        )

    return st.recursive(simple, further, max_leaves=8)


@given(st.lists(_typed(), max_size=4))
def test_what_is_written_is_read(pairs: list[tuple[str, Any]]) -> None:
    """Any types, one after another."""
    writer = dbus.Writer()
    for kind, value in pairs:
        writer.write(kind, value)
    reader = dbus.Reader(bytes(writer.data))
    assert [reader.read(kind) for kind in dbus.complete_types("".join(kind for kind, _ in pairs))] == [
        value for _, value in pairs
    ]


@given(_typed(), st.data())
def test_what_is_cut_short_is_no_value(pair: tuple[str, Any], data: st.DataObject) -> None:
    """A number, a text or an array that goes on after the end."""
    kind, value = pair
    writer = dbus.Writer()
    writer.write(kind, value)
    whole = bytes(writer.data)
    if kind in {"s", "g"}:
        whole = whole[:-1]  # the last byte is the text's end and says nothing
    cut = whole[: data.draw(st.integers(0, max(len(whole) - 1, 0)))]
    try:
        found = dbus.Reader(cut).read(kind)
    except errors.ProtocolError:
        return
    assert found == value  # what was cut off was the end of a text, or filling


@pytest.mark.parametrize("signature", ["a", "(", "(s", "z", "a(s", ")", "e"])
def test_what_is_no_signature(signature: str) -> None:
    with pytest.raises(errors.ProtocolError, match="is no signature"):
        dbus.complete_types(signature)


def _served(path: Path, *answers: bytes) -> threading.Thread:
    """A peer that says these bytes to whoever connects first, and hangs up: two when it is spoken to, then the rest."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            for number, answer in enumerate(answers):
                if number < 2:
                    connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def _message(kind: int, serial: int, reply_to: int, member: str, signature: str, *values: Any) -> bytes:
    body, head = dbus.Writer(), dbus.Writer()
    for each, value in zip(dbus.complete_types(signature), values, strict=True):
        body.write(each, value)
    for code, value in (("y", ord("l")), ("y", kind), ("y", 0), ("y", 1), ("u", len(body.data)), ("u", serial)):
        head.write(code, value)
    fields = [(8, ("g", signature))]
    fields += [(5, ("u", reply_to))] if reply_to else []  # type: ignore[list-item]
    fields += [(3, ("s", member))] if kind == dbus.SIGNAL else []
    fields += [(4, ("s", member))] if kind == dbus.ERROR else []
    head.write("a(yv)", fields)
    head.align(8)
    return bytes(head.data + body.data)


def test_signals_before_an_answer_are_kept(tmp_path: Path) -> None:
    """systemd may tell of a job's end before it has answered the call that made it."""
    early = _message(dbus.SIGNAL, 1, 0, "JobRemoved", "uoss", 7, "/job/7", "x.scope", "done")
    answer = _message(dbus.RETURN, 2, 1, "", "o", "/job/7")
    thread = _served(tmp_path / "s", b"DATA\r\nOK 00\r\n", early + answer[:9], answer[9:])
    with dbus.Connection(str(tmp_path / "s")) as connection:
        assert connection.call("/m", "i.m", "Start", "s", "x").values() == ("/job/7",)
        signal = next(connection.signals())
        assert (signal.member, signal.values()[1:]) == ("JobRemoved", ("/job/7", "x.scope", "done"))
    thread.join()


@pytest.mark.parametrize(
    ("first", "words"),
    [(b"REJECTED EXTERNAL\r\n", "this user is refused"), (b"x" * 2000, "does not speak it"), (b"", "hung up")],
)
def test_who_does_not_speak_it(tmp_path: Path, first: bytes, words: str) -> None:
    """Each is one error, at once."""
    thread = _served(tmp_path / "s", first)
    with pytest.raises(errors.ContainerError, match=words):
        dbus.Connection(str(tmp_path / "s"))
    thread.join()


def test_who_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without end, and the error says what was."""
    monkeypatch.setattr(dbus, "TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(errors.ProtocolError, match="nothing was heard"):
            dbus.Connection(str(tmp_path / "s"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"B" + bytes(15), "byte order"),
        (b"l\2\0\1" + struct.pack("<III", 1 << 30, 1, 0), "too large"),
        (b"l\2\0\1" + struct.pack("<III", 0, 1, 8) + b"\xff" * 8, "cut short|is no signature"),
    ],
)
def test_messages_that_are_none(tmp_path: Path, answer: bytes, words: str) -> None:
    """Nothing that a peer sends is believed."""
    thread = _served(tmp_path / "s", b"OK 00\r\n", answer)
    with dbus.Connection(str(tmp_path / "s")) as connection, pytest.raises(errors.ProtocolError, match=words):
        connection.call("/m", "i.m", "Start", "")
    thread.join()
