"""What `make bundle` makes, for tests of the installation."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.support import debians, rootfs

ROOT = Path(__file__).parents[2]
BUNDLE_S = 800
MAKE_BUNDLE = """\
apt-get --quiet=2 update
apt-get --quiet=2 --assume-yes --no-install-recommends install python3-venv
python3 -m venv /tmp/venv
PYTHON=/tmp/venv/bin/python /mnt/source/deploy/bundle.sh /mnt/out/orch
"""
"""Where nothing is but a small Debian."""


def make(folder: Path, release: str) -> None:
    """`orch` as it is made on such a Debian; `next`, the release after it: the same, under another name; and
    `busybox.tar`, the image of a service.
    """
    made = folder / "orch"
    if release == debians.own():
        command = [ROOT / "deploy/bundle.sh", made]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUNDLE_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        debians.inside(release, MAKE_BUNDLE, source=ROOT, out=folder, timeout_s=BUNDLE_S)
    following = folder / "next"
    shutil.copytree(made, following, copy_function=os.link)
    _rewrite(following, "release", (made / "release").read_text().strip() + "-next\n")
    _rewrite(following, "SHA256SUMS", "")
    sums = "find . -type f -not -name SHA256SUMS -printf '%P\\0' | sort -z | xargs -0 sha256sum >SHA256SUMS"
    subprocess.run(sums, shell=True, cwd=following, check=True)
    root = rootfs.busybox(folder / "root")
    with tarfile.open(folder / "busybox.tar", "w") as archive:
        archive.add(root, ".")


def _rewrite(folder: Path, name: str, text: str) -> None:
    """Without touching the file that shares its content."""
    (folder / name).unlink()
    (folder / name).write_text(text)
