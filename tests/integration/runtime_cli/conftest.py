"""The installed command, bundles with a static busybox, and containers that are gone when their test ends."""

import contextlib
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import pytest

from runtime import cgroups
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
BUSYBOX = Path("/bin/busybox")
PARENT = f"/orch/test-cli-{os.getpid()}"


@pytest.fixture(scope="session")
def orchrun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command as `make install-runtime` installs it, below a prefix of its own."""
    prefix = tmp_path_factory.mktemp("prefix")
    for target in ("install-runtime", "uninstall-runtime"):
        command = ["make", target, f"PREFIX={prefix}"]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True)
        if target == "install-runtime":
            yield prefix / "bin/orchrun"
    assert not list(prefix.rglob("orchrun*")), "uninstalled"


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system: busybox with all its applets, and a user."""
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (root / folder).mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in set(applets) - {"busybox"}:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1001:\nvideo:x:44:app\n")
    return root


class Typist:
    """A program on a terminal, and who sits at it."""

    def __init__(self, line: Sequence[str], **options: Any) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.resize(33, 77)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.slave)
        self.process = subprocess.Popen(line, start_new_session=True, **streams, **options)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self.master, text.encode())

    def expect(self, text: str, timeout_s: float = 20) -> None:
        """Wait until the screen has shown this."""
        try:
            until(lambda: text.encode() in self._read(), what=f"{text!r} on the screen", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; it shows {self.seen!r}, and the program's end is {self.process.poll()}"
            ) from None

    def _read(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            self.seen += os.read(self.master, 65536)
        return self.seen

    def ended(self) -> int:
        """The exit code, at the end."""
        code = self.process.wait(timeout=30)
        self._read()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=30)
        os.close(self.master)
        os.close(self.slave)


class Command:
    """`orchrun` with a state folder of its own, and bundles for it."""

    def __init__(self, path: Path, rootfs: Path, folder: Path, parent: str) -> None:
        self.path = path
        self.rootfs = rootfs
        self.folder = folder
        self.parent = parent
        self.root = folder / "state"

    def line(self, *arguments: object) -> list[str]:
        """The command line."""
        return [str(self.path), "--root", str(self.root), *map(str, arguments)]

    def call(self, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        options = {"stdin": subprocess.DEVNULL, "timeout": 60, **options}
        return subprocess.run(self.line(*arguments), capture_output=True, text=True, check=False, **options)

    def detached(self, *arguments: object, output: IO[bytes]) -> int:
        """Its exit code, when what it leaves running writes to `output`."""
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        return subprocess.run(self.line(*arguments), timeout=60, check=False, **options).returncode

    def ok(self, *arguments: object, **options: Any) -> str:
        """What it prints when it succeeds."""
        done = self.call(*arguments, **options)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def refused(self, *arguments: object, **options: Any) -> str:
        """What it says when it fails."""
        done = self.call(*arguments, **options)
        assert done.returncode != 0, (arguments, done.stdout)
        assert done.stderr.startswith("orchrun: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def status(self, container: str) -> str:
        """The status that `state` tells."""
        return str(json.loads(self.ok("state", container))["status"])

    def pid(self, container: str) -> int:
        return int(json.loads(self.ok("state", container))["pid"])

    def bundle(self, name: str, args: Sequence[str], *, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """A bundle with the default configuration of `orchrun spec`, without a terminal."""
        folder = self.folder / name
        folder.mkdir()
        self.ok("spec", "--bundle", folder)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["root"]["path"] = str(self.rootfs)
        config["process"]["terminal"] = False
        config["process"]["args"] = list(args)
        config["linux"]["cgroupsPath"] = f"{self.parent}/{name}"
        if change is not None:
            change(config)
        path.write_text(json.dumps(config))
        return folder

    def start(self, name: str, *args: str, change: Callable[[dict[str, Any]], None] | None = None) -> int:
        """A container that runs in the background; its pid. Its output goes to a file, since it keeps it open."""
        bundle = self.bundle(name, args or ("sleep", "1000"), change=change)
        with (self.folder / f"{name}.out").open("wb") as output:
            code = self.detached("run", "--detach", "--bundle", bundle, name, output=output)
        assert code == 0, (self.folder / f"{name}.out").read_text()
        return self.pid(name)

    def leftovers(self) -> list[str]:
        """What is in the state folder, but for the compiled filters."""
        return [path.name for path in self.root.glob("*") if not path.name.startswith("@")]

    def close(self) -> None:
        for name in self.ok("list", "--quiet").split():
            self.ok("delete", "--force", name)
        group = cgroups.existing(cgroups.current_layout(), self.parent)
        group.kill_all()
        group.delete()


@pytest.fixture
def command(orchrun: Path, rootfs: Path, tmp_path: Path) -> Iterator[Command]:
    """The command, whose containers are gone when the test ends."""
    made = Command(orchrun, rootfs, tmp_path, f"{PARENT}-{abs(hash(tmp_path)) % 10**8}")
    try:
        yield made
    finally:
        made.close()
