"""Keeps the kernel's nftables table equal to a Plane: one transaction at a time, and a new one when others meddle.

Three rules: whoever noted something waits until a transaction that has it was carried out, and what was noted while one
ran goes into the next; where many wait at a time, transactions are few; and a table that somebody else has touched is
made anew as a whole.
"""

import asyncio
import collections
import contextlib
import json
import socket
import struct
import subprocess
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import structlog

from agent.adapters import conntrack, netlink
from agent.adapters.netlink import NETLINK_NETFILTER
from agent.core import firewall
from agent.core.plane import Plane, Transaction
from agent.errors import Temporary

log = structlog.get_logger()

NFT_TIMEOUT_S = 10.0
MEND_INTERVAL_S = 5.0
"""Between two repairs; the first comes at once. Two who both want the last word must not fill the processor."""

MANY, TOGETHER_S = 6, 0.12
"""Where so many changes are under way, so long passes between two transactions: each costs the start of an nft, 3 ms of
a processor, and the network of a hundred tasks that start at once is made with a third of them.
"""

REMEMBERED = 256
_NFNLGRP_NFTABLES, _NFNL_SUBSYS_NFTABLES, _NFTA_TABLE = 7, 10, 1
_NFT_MSG_NEWGEN = 15
_RECEIVE_BUFFER_BYTES = 8 << 20
_SO_RCVBUFFORCE = 33
_NFGENMSG_BYTES = 4
_REQUESTS = {"requests": "", "requests6": "", "published-requests": ""}
_REFUSALS = {"refusals": "", "refusals6": "", "closed": "", "closed6": "", "barred": "", "barred6": ""}
_TRAFFIC = {"traffic": "", "traffic6": "", "published-traffic-tcp": "tcp ", "published-traffic-udp": "udp "}
"""The sets with counters, and what their keys lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What went through an address or a published port since its counter was made."""

    requests: int = 0  # connections, or flows, whether or not they were let in
    refused: int = 0  # attempts
    packets: int = 0  # of both directions, as far as they were forwarded
    bytes: int = 0


class Rules:
    """`run` it; it ends only by being cancelled."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._noted = self._written = self._failed = self._under_way = 0
        self._problem = ""
        self._wake = asyncio.Event()
        self._carried_out = asyncio.Condition()
        self._watch = _Watch()
        self._mend: asyncio.TimerHandle | None = None
        self._mended_at = -MEND_INTERVAL_S

    @contextlib.contextmanager
    def changed(self) -> Iterator[int]:
        """The plane has changed; gives what to wait for. It counts as under way inside the block."""
        self._noted += 1
        self._under_way += 1
        self._wake.set()
        try:
            yield self._noted
        finally:
            self._under_way -= 1

    async def settled(self, noted: int) -> None:
        """Wait until the kernel has what the plane knew by then. Raises Temporary."""
        async with self._carried_out:
            await self._carried_out.wait_for(lambda: max(self._written, self._failed) >= noted)
        if self._written < noted:
            raise Temporary(self._problem, reason="NetworkFailed")

    async def run(self) -> None:
        """Carry out transactions whenever there is something to tell."""
        loop = asyncio.get_running_loop()
        last = -TOGETHER_S
        with self._watch.opened() as descriptor:
            loop.add_reader(descriptor, self._heard)
            try:
                while True:
                    await self._wake.wait()
                    if self._under_way >= MANY:
                        await asyncio.sleep(last + TOGETHER_S - loop.time())
                    self._wake.clear()
                    last = loop.time()
                    await self._round()
            finally:
                loop.remove_reader(descriptor)
                if self._mend is not None:
                    self._mend.cancel()

    async def _round(self) -> None:
        noted = self._noted
        try:
            await self._write()
        except (OSError, subprocess.SubprocessError) as error:
            self._failed, self._problem = noted, str(error)
        else:
            self._written = noted
        self._heard()
        async with self._carried_out:
            self._carried_out.notify_all()

    async def _write(self) -> None:
        transaction = self._plane.transaction()
        try:
            await self._carry_out(transaction)
        except (OSError, subprocess.SubprocessError) as error:
            self._plane.lose()
            if transaction.whole:
                raise
            log.warning("a change of the rules was refused; making all of them anew", error=str(error))
            await self._carry_out(self._plane.transaction())

    async def _carry_out(self, transaction: Transaction) -> None:
        self._watch.busy = True
        try:
            if transaction.text:
                await asyncio.to_thread(self._watch.nft, transaction.text)
        except BaseException:
            self._plane.lose()
            raise
        finally:
            self._watch.busy = False
        if transaction.udp_gone or transaction.udp_opened:
            await self._forget_udp(transaction)

    async def _forget_udp(self, transaction: Transaction) -> None:
        """New flows go where they should already, so nothing is made anew when this fails."""
        try:
            await asyncio.to_thread(conntrack.forget_udp, transaction.udp_gone, transaction.udp_opened)
        except OSError as error:
            log.warning("UDP clients may go on sending to tasks that have gone", error=str(error))

    def _heard(self) -> None:
        """Something has changed in the kernel's tables, perhaps by our own doing."""
        if not self._watch.touched_by_others() or self._mend is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = max(0.0, self._mended_at + MEND_INTERVAL_S - loop.time())
        self._mend = loop.call_later(wait_s, self._mend_now)

    def _mend_now(self) -> None:
        log.warning("somebody else has changed the rules of this node; making them anew")
        self._mend = None
        self._mended_at = asyncio.get_running_loop().time()
        self._plane.lose()
        self._wake.set()


class _Watch:
    """Tells whether others than our own nft have changed the table (the multicast group of nf_tables).

    A message carries the port of whoever made the change, which for nft is its process id.
    """

    def __init__(self) -> None:
        self.busy = False
        self._socket: socket.socket | None = None
        self._ours: collections.deque[int] = collections.deque(maxlen=REMEMBERED)
        self._seen: set[int] = set()
        self._overflown = False

    def opened(self) -> socket.socket:
        opened = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        opened.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        self._socket = opened
        return opened

    def nft(self, text: str) -> None:
        """One transaction: all of it or nothing. In a thread."""
        command = ["nft", "-f", "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            self._ours.append(process.pid)
            try:
                output, _ = process.communicate(text, timeout=NFT_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise OSError(f"nft refused the rules: {_first_line(output)}")

    def touched_by_others(self) -> bool:
        """Takes in what has come. While a transaction runs nothing is decided: whose it is may not be known yet."""
        self._read()
        if self.busy:
            return False
        foreign, overflown = bool(self._seen.difference(self._ours)), self._overflown
        self._seen.clear()
        self._overflown = False
        return foreign or (overflown and not _is_there())

    def _read(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more has happened than fits
                self._overflown = True
                continue
            self._seen.update(_ports_about_us(data))


def counters() -> dict[str, Traffic]:
    """What has gone through virtual addresses (`10.201.0.5`) and published ports (`tcp 8080`), and what was not let in
    to tasks of this node (`10.112.1.2`). Raises OSError.
    """
    there = _sets_there()
    requests, refusals, passed = (_sums(each, there) for each in (_REQUESTS, _REFUSALS, _TRAFFIC))
    return {
        key: Traffic(
            requests=requests[key]["packets"],
            refused=refusals[key]["packets"],
            packets=passed[key]["packets"],
            bytes=passed[key]["bytes"],
        )
        for key in {**requests, **refusals, **passed}
    }


def remove() -> None:
    """Take the table away, if it is there."""
    _run(
        ["nft", "-f", "-"],
        text=f"table {firewall.FAMILY} {firewall.TABLE}\ndelete table {firewall.FAMILY} {firewall.TABLE}\n",
    )


def _ports_about_us(data: bytes) -> set[int]:
    found = set()
    offset = 0
    while offset + netlink.HEADER.size <= len(data):
        size, kind, _, _, port = netlink.HEADER.unpack_from(data, offset)
        if size < netlink.HEADER.size:
            break
        subsystem, message = kind >> 8, kind & 0xFF
        if subsystem == _NFNL_SUBSYS_NFTABLES and message != _NFT_MSG_NEWGEN:
            body = data[offset + netlink.HEADER.size + _NFGENMSG_BYTES : offset + size]
            if _table_of(body) == firewall.TABLE:
                found.add(port)
        offset += size + -size % 4
    return found


def _table_of(body: bytes) -> str:
    """The name of the table comes first in all of these messages."""
    if len(body) < 4:
        return ""
    size, kind = struct.unpack_from("=HH", body)
    return body[4:size].rstrip(b"\0").decode(errors="replace") if kind == _NFTA_TABLE else ""


def _is_there() -> bool:
    try:
        output = _run(["nft", "list", "chain", firewall.FAMILY, firewall.TABLE, "inbound"])
    except OSError:
        return False
    return "@gateways" in output


def _run(command: list[str], *, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise OSError(f"nft failed: {_first_line(done.stderr)}")
    return done.stdout


def _sets_there() -> frozenset[str]:
    """Their names: those of a family that the node does not have are not there."""
    listed = json.loads(_run(["nft", "-j", "-t", "list", "table", firewall.FAMILY, firewall.TABLE]))["nftables"]
    return frozenset(item["set"]["name"] for item in listed if "set" in item)


def _sums(sets: Mapping[str, str], there: Collection[str]) -> Mapping[str, Counter[str]]:
    """The counters of all these sets by key: a published port is refused in either family."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for name, prefix in sets.items():
        for key, counter in _listed(name, prefix).items() if name in there else ():
            sums[key].update(counter)
    return sums


def _listed(name: str, prefix: str) -> dict[str, dict[str, int]]:
    """The counters of a set, by key. One set a process: nft 1.0.6 finds only the first of several."""
    listed = json.loads(_run(["nft", "-j", "list", "set", firewall.FAMILY, firewall.TABLE, name]))["nftables"]
    entries = [entry for item in listed for entry in item.get("set", {}).get("elem", ())]
    return {prefix + _key(entry): _counter(entry) for entry in entries}


def _key(entry: object) -> str:
    value = entry["elem"]["val"] if isinstance(entry, dict) and "elem" in entry else entry
    return " ".join(map(str, value["concat"])) if isinstance(value, dict) else str(value)


def _counter(entry: object) -> dict[str, int]:
    return dict(entry["elem"].get("counter", {})) if isinstance(entry, dict) and "elem" in entry else {}


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
