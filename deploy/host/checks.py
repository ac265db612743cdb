"""What has to be so before a machine takes a role; one clear error each."""

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from typing import Final

from deploy.host.errors import HostError
from trust.core import identity

_SERVER: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\])(?::(?P<port>[0-9]{1,5}))?")


def root(what: str) -> None:
    """HostError for whoever is not root."""
    if os.geteuid() != 0:
        raise HostError(f"{what} needs root: it writes /etc/orch and starts services", hint="run it with sudo")


def name(text: str, whose: str) -> str:
    """The name, when a member may have it."""
    if not identity.NAME.fullmatch(text):
        raise HostError(f"{text!r:.70} is no name for {whose}", hint=f"a name has {identity.NAME_HINT}")
    return text


def host_name() -> str:
    """What this machine is called, where that is a name for a member."""
    found = socket.gethostname().partition(".")[0].lower()
    if not identity.NAME.fullmatch(found):
        raise HostError(f"the name of this machine, {found!r:.70}, is none for a member", hint="say one with --name")
    return found


def server(text: str, port: int, option: str = "--server") -> tuple[str, int]:
    """`10.0.0.1`, `10.0.0.1:7400` or `[fd00::1]:7400` → host and port."""
    match = _SERVER.fullmatch(text)
    found = int(match["port"] or port) if match else 0
    if match is None or not 0 < found < 65536:
        raise HostError(f"{option}: not the address of a machine: {text!r:.100}", hint="write it like 10.0.0.1")
    return match["host"].strip("[]"), found


def joined(host: str, port: int) -> str:
    """`10.0.0.1:7400`, `[fd00::1]:7400`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_address(other: str = "192.0.2.1") -> str:
    """The address that this machine has on its way to another. Nothing is sent."""
    try:
        found = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as link:
            link.connect(found[4])
            return str(link.getsockname()[0])
    except OSError as error:
        text = f"this machine has no way to {other}: {error.strerror}"
        raise HostError(text, hint="say the machine's own address with --address") from error


def address(text: str) -> str:
    """The address, when it is one of this machine's."""
    try:
        shown = str(ipaddress.ip_address(text))
    except ValueError as error:
        raise HostError(f"--address: {error}", hint="write it like 10.0.0.2") from error
    problem = _bind(shown, 0)
    if problem is not None:
        raise HostError(f"--address: {shown} is no address of this machine", hint="`ip address` shows those that are")
    return shown


def free(host: str, ports: Iterable[int], remedy: str) -> None:
    """HostError when something listens at a port."""
    for port in ports:
        problem = _bind(host, port)
        if problem is not None:
            what = "is in use" if problem.errno == errno.EADDRINUSE else f"cannot be used: {problem.strerror}"
            hint = f"`ss -ltnp sport = :{port}` tells by whom; {remedy}"
            raise HostError(f"port {port} of {host} {what}", hint=hint)


def _bind(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as link:
        # As servers do: what is closed and only lingers is no hindrance.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            link.bind((host, port))
        except OSError as error:
            return error
    return None
