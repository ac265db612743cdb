"""The disk that the machines install from: a bundle of this checkout, and one of the release that is to come after it.

One rule: a disk is named by a digest of the checkout's files: the same checkout makes it once. There is one at a time.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deploy.local import errors
from deploy.vmlab import initial, keeping, plan

THIS: Final = "this"
NEXT: Final = "next"
"""The folders of the two releases."""
_TIMEOUT_S: Final = 600
_LABEL: Final = "bundles"
MOUNT: Final = f"mountpoint -q /mnt || mount -o ro LABEL={_LABEL} /mnt"
"""The command with which a machine has the folders in /mnt."""
_VERSION: Final = re.compile(r'^(version = "\d+\.\d+\.)(\d+)"$', re.MULTILINE)


def ensure(places: plan.Places, say: Callable[[str], None]) -> Path:
    """The disk, which is made when there is none for this checkout. LocalError when it cannot be."""
    files = _files()
    wanted = places.cache / f"bundles-{_digest(files)}.ext4"
    if not wanted.exists():
        say("making bundles of this release and of the next one, with their wheels and Debian packages")
        places.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in places.cache.glob("bundles-*.ext4"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=places.cache, prefix="bundles-making-") as folder:
            _make(Path(folder), files, wanted)
    return wanted


def _files() -> Sequence[Path]:
    """What is committed, or would be, but for the tests; by its path in the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", ".", ":!tests"]
    listed = subprocess.run(command, cwd=initial.ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    return sorted({Path(name) for name in listed.split("\0") if name and (initial.ROOT / name).is_file()})


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = hashlib.sha256((initial.ROOT / path).read_bytes()).hexdigest()
        digest.update(f"{path} {content}\n".encode())
    return digest.hexdigest()[:16]


def _make(folder: Path, files: Sequence[Path], disk: Path) -> None:
    content = folder / "content"
    content.mkdir()
    _check_out(files, folder / "source")
    _bundle(folder / "source", content / THIS)
    project = folder / "source/pyproject.toml"
    project.write_text(raised(project.read_text()))
    _bundle(folder / "source", content / NEXT)
    for tar in content.glob("*.tar"):
        tar.unlink()
    size_kb = sum(path.stat().st_size for path in content.rglob("*")) // 1024 * 5 // 4 + 32_768
    stage = folder / disk.name
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-L", _LABEL, "-d", content, stage, f"{size_kb}k")
    stage.rename(disk)


def _check_out(files: Sequence[Path], target: Path) -> None:
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(initial.ROOT / path, target / path)


def _bundle(source: Path, target: Path) -> None:
    _run("env", f"PYTHON={sys.executable}", source / "deploy/bundle.sh", target)


def raised(project: str) -> str:
    """The text of a pyproject.toml with a higher version: 0.2.0 → 0.2.1."""
    text, count = _VERSION.subn(lambda found: f'{found[1]}{int(found[2]) + 1}"', project)
    assert count == 1, f'pyproject.toml has {count} lines like version = "0.2.0"'
    return text


def _run(*command: str | Path) -> None:
    with tempfile.NamedTemporaryFile(prefix="orch-vmlab-", suffix=".log") as log:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_TIMEOUT_S, check=True)
        except subprocess.CalledProcessError:
            raise errors.LocalError(f"{Path(command[0]).name} failed", detail=keeping.tail(Path(log.name))) from None
        except subprocess.TimeoutExpired:
            raise errors.LocalError(f"{Path(command[0]).name} took longer than {_TIMEOUT_S} s") from None
