"""Debian's docker-registry as a peer: a process of its own, with a folder of its own, on a loopback port of its own."""

import base64
import contextlib
import ctypes
import secrets
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.waiting import until

PROGRAM = "docker-registry"
USER, PASSWORD = "ada", "pass word:1"  # with signs that break whoever splits or quotes wrongly


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`address` is `host:port`, as it stands in image names."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def requests(self) -> list[str]:
        """The access log: `GET /v2/… 200`, in order."""
        lines = (line for line in self.log.read_text(errors="replace").splitlines() if '"' in line and "HTTP/1" in line)
        return [f"{line.split(chr(34))[1].rpartition(' ')[0]} {line.split(chr(34))[2].split()[0]}" for line in lines]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    folder: Path, *, host: str = "127.0.0.1", data: Path | None = None, inside: Sequence[str] = (), **sections: Any
) -> Iterator[Server]:
    """A registry below `folder`; `sections` are added to its configuration (`auth`, or `http` for TLS).

    `data` is another one's folder of data, to serve the same; `inside` a command that runs it elsewhere (nsenter).
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"{host}:{free_port()}"
    http = {"addr": address.replace("localhost", "127.0.0.1"), **sections.pop("http", {})}
    config = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}, "level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(data or folder / "data")}, "delete": {"enabled": True}},
        "http": http,
        **sections,
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*inside, PROGRAM, "serve", folder / "config.yml"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until(lambda: _listens(process, log), what=f"docker-registry answers at {address}", timeout_s=30)
        yield Server(address=address, process=process, log=log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(process: subprocess.Popen[bytes], log: Path) -> bool:
    said = log.read_text(errors="replace")
    assert process.poll() is None, said
    return "listening on" in said


def htpasswd(folder: Path) -> dict[str, Any]:
    """The section `auth` for USER and PASSWORD; docker-registry takes bcrypt only."""
    salt = base64.b64encode(secrets.token_bytes(16), altchars=b"./").decode()[:22].replace("=", ".")
    # The only bcrypt that every Debian has: crypt(3). Python 3.13 has no module for it any more.
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    # The last sign of the salt carries two bits; libxcrypt refuses others.
    hashed = library.crypt(PASSWORD.encode(), f"$2y$05${salt[:21]}O".encode()).decode()
    assert hashed.startswith("$2y$"), "this libxcrypt has no bcrypt"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
    return {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate that signs itself, for `name` and 127.0.0.1, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    command += ["-out", str(pair[0]), "-keyout", str(pair[1])]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return pair


def tls(pair: tuple[Path, Path], *, clients: Path | None = None) -> dict[str, Any]:
    """The part of the section `http`; with `clients`, only those with a certificate of that CA get in."""
    section: dict[str, Any] = {"certificate": str(pair[0]), "key": str(pair[1])}
    if clients:
        section["clientcas"] = [str(clients)]
    return {"tls": section}
