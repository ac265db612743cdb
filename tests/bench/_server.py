"""The web server of the network's benchmark: an image of Debian's lighttpd, which answers with the task's name."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from deploy import hello

PORT = 8080
PATH = "/name"
START = "/serve"
_SERVE = f"""\
#!/bin/sh
echo "${{ORCH_TASK:-docker}}" >/www{PATH}
exec /usr/sbin/lighttpd -D -f /etc/lighttpd.conf
"""
_CONFIGURATION = f"""\
server.document-root = "/www"
server.port = {PORT}
server.compat-module-load = "disable"
server.modules = ("mod_staticfile")
server.max-keep-alive-requests = 60000
server.max-connections = 512
"""


def program() -> str | None:
    """Where this machine has it."""
    return shutil.which("lighttpd") or shutil.which("lighttpd", path="/usr/sbin")


def write(path: Path) -> None:
    """The image's tar: busybox, the server with the libraries that it names, and its configuration."""
    hello.write(path, plain=True)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as archive:
        _add_folder(archive, "www")
        for name, content in _files():
            _add(archive, name, content)


def _files() -> Iterator[tuple[str, bytes]]:
    server = program()
    assert server is not None, "lighttpd is not on PATH: apt-get install lighttpd"
    yield START, _SERVE.encode()
    yield "/etc/lighttpd.conf", _CONFIGURATION.encode()
    yield "/usr/sbin/lighttpd", Path(server).read_bytes()
    for library in _libraries(server):
        yield library, Path(library).read_bytes()


def _libraries(server: str) -> Iterator[str]:
    """The paths in what ldd(1) says, such as `libc.so.6 => /lib/libc.so.6 (0x0)`."""
    said = subprocess.run(["ldd", server], capture_output=True, text=True, timeout=10, check=True).stdout
    for line in said.splitlines():
        yield from (word for word in line.split() if word.startswith("/"))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name.lstrip("/"))
    member.mode, member.size = 0o755, len(content)
    archive.addfile(member, io.BytesIO(content))


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.type = 0o755, tarfile.DIRTYPE
    archive.addfile(member)
