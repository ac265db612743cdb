"""Makes the demo's images from Debian's busybox-static: plain root file system tars, the same bytes every time.

python -m deploy.hello hello.tar                a web server that says which task, node and slot it is
python -m deploy.hello --plain busybox.tar      the applets alone
"""

import argparse
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PORT: Final = 8080
START: Final = "/serve"
"""The program to run as the image's command."""

# As process 1 it has to handle the stop signal itself: the kernel ignores signals without a handler there.
_SERVE: Final = f"""\
#!/bin/sh
trap 'echo "$ORCH_TASK stops"; exit 0' TERM INT
httpd -f -p {PORT} -h /www &
echo "$ORCH_TASK listens on $ORCH_ADDRESS:{PORT}"
wait $!
"""
_ANSWER: Final = """\
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "task=$ORCH_TASK node=$ORCH_NODE slot=$ORCH_SLOT"
caller=${REMOTE_ADDR#*ffff:}
echo "$ORCH_TASK answers ${caller%]}" >&2
"""
_FOLDERS: Final = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var")
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnobody:x:65534:\n",
}
_WEB_FOLDERS: Final = ("www", "www/cgi-bin")
_WEB_FILES: Final = {"serve": _SERVE, "www/cgi-bin/index.cgi": _ANSWER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A folder, a file (`content`) or a symbolic link (`target`)."""

    path: str
    mode: int = 0o755
    content: bytes | None = None
    target: str = ""


def write(path: Path, *, plain: bool = False) -> None:
    """The image's tar. FileNotFoundError when busybox-static is not installed."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry in _entries(plain=plain):
            _add(archive, entry)


def _entries(*, plain: bool) -> Iterator[Entry]:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is not on PATH: apt-get install busybox-static")
    for folder in _FOLDERS + (() if plain else _WEB_FOLDERS):
        yield Entry(path=folder, mode=0o1777 if folder == "tmp" else 0o755)
    yield Entry(path="bin/busybox", content=Path(busybox).read_bytes())
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=10, check=True).stdout
    for applet in sorted(set(applets.split()) - {"busybox"}):
        yield Entry(path=f"bin/{applet}", target="busybox")
    for file, text in _FILES.items():
        yield Entry(path=file, mode=0o644, content=text.encode())
    for file, text in ({} if plain else _WEB_FILES).items():
        yield Entry(path=file, content=text.encode())


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)  # owner 0:0 and time 0, so that the same image has the same digest
    member.mode = entry.mode
    if entry.target:
        member.type, member.linkname = tarfile.SYMTYPE, entry.target
    elif entry.content is None:
        member.type = tarfile.DIRTYPE
    else:
        member.size = len(entry.content)
    archive.addfile(member, io.BytesIO(entry.content or b""))


def main() -> None:
    """Write the tar that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m deploy.hello", description=__doc__)
    parser.add_argument("--plain", action="store_true", help="without the web server")
    parser.add_argument("tar", type=Path)
    options = parser.parse_args()
    write(options.tar, plain=options.plain)


if __name__ == "__main__":
    main()
