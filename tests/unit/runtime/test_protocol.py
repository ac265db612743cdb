"""Messages, descriptors and bounds."""

import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from runtime import errors, protocol


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("size", [0, 1000, protocol.MAX_PACKET_BYTES - 20, protocol.MAX_PACKET_BYTES, 3_000_000])
def test_messages_of_any_size_with_descriptors(pair: Pair, size: int) -> None:
    """A body beyond a packet goes through a memory file; descriptors keep their order."""
    ours, theirs = pair
    first, second = os.pipe()
    protocol.send(ours, {"id": 1, "text": "x" * size}, [first, second])
    message = protocol.receive(theirs)
    assert message is not None
    assert message.body == {"id": 1, "text": "x" * size}
    os.write(message.fds[1], b"through")
    assert os.read(message.fds[0], 10) == b"through"
    assert not os.get_inheritable(message.fds[0])
    message.close()
    os.close(first)
    os.close(second)


@pytest.mark.parametrize("size", [0, protocol.MAX_PACKET_BYTES])
def test_a_configuration_arrives_as_it_was_written(pair: Pair, size: int) -> None:
    """As a value like every field, and as its text, which can be stored as it is."""
    ours, theirs = pair
    config = {"hostname": "ä\0\n", "text": "x" * size}
    protocol.send(ours, {"id": 1, "config": config, "start": True})
    protocol.send(ours, {"id": 2})
    message, other = protocol.receive(theirs), protocol.receive(theirs)
    assert message is not None
    assert other is not None
    assert message.body == {"id": 1, "config": config, "start": True}
    assert json.loads(message.config) == config
    assert (other.body, other.config) == ({"id": 2}, b"")


def test_end_of_connection(pair: Pair) -> None:
    """Reading gives None; writing says that the other end has gone."""
    ours, theirs = pair
    theirs.close()
    assert protocol.receive(ours) is None
    with pytest.raises(errors.PeerGone):
        protocol.send(ours, {"id": 1})


def test_last_words_are_heard(pair: Pair) -> None:
    """What the other end sent before it closed arrives, also when it left messages of ours unread."""
    ours, theirs = pair
    protocol.send(ours, {"id": 1})
    protocol.send(theirs, {"error": "last words"})
    theirs.close()
    message = protocol.receive(ours)
    assert message is not None
    assert message.body == {"error": "last words"}
    assert protocol.receive(ours) is None


def test_too_large_is_refused(pair: Pair) -> None:
    """On both sides."""
    with pytest.raises(errors.ProtocolError, match="are the most"):
        protocol.send(pair[0], {"text": "x" * protocol.MAX_BODY_BYTES})
    pair[0].send(b"J" + b" " * protocol.MAX_PACKET_BYTES)
    with pytest.raises(errors.ProtocolError, match="packet above"):
        protocol.receive(pair[1])


@pytest.mark.parametrize("packet", [b"J{", b"J[]", b"X", b"M", b"Jnull"])
def test_nonsense_is_refused_and_leaks_nothing(pair: Pair, packet: bytes) -> None:
    """Descriptors of a message that cannot be read are closed."""
    ours, theirs = pair
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the iterator of a Path holds one open
    reader, writer = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", writer))]
    ours.sendmsg([packet], [] if packet == b"M" else rights)
    with pytest.raises(errors.ProtocolError):
        protocol.receive(theirs)
    os.close(reader)
    os.close(writer)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_errors_keep_their_type() -> None:
    """Over the wire an error is what it was, with its exit code."""
    reply = protocol.failed(3, errors.ProgramNotFound("program 'x' is missing", step="find program", errno=2))
    with pytest.raises(errors.ProgramNotFound, match="'x' is missing") as caught:
        protocol.result(reply)
    assert (caught.value.exit_code, caught.value.step, caught.value.errno) == (127, "find program", 2)


def test_non_blocking(pair: Pair) -> None:
    """An empty non-blocking socket raises, as asyncio's readers expect."""
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        protocol.receive(pair[0])


def test_socket_file_is_private(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Mode 0600, also with a path beyond 108 bytes; the peer's user is known."""
    folder = tmp_path_factory.mktemp("x" * 100)
    path = str(folder / "monitor.sock")
    with protocol.listen(path) as listener, protocol.connect(path):
        assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116 - a plain string
        accepted, _ = listener.accept()
        with accepted:
            assert protocol.peer_uid(accepted) == os.geteuid()
