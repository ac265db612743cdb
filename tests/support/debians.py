"""Debians that machines of tests begin as: made once by debootstrap, and kept in /var/cache.

Two rules: what is kept is named by a digest of everything that it is made from, and is never written to; and all of it
comes from where this machine's own packages come from.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("ORCH_TEST_CACHE", "/var/cache/orch-tests"))
PACKAGES: Final = ("ca-certificates", "dbus", "iproute2", "systemd-sysv")
RECOMMENDED: Final = {"trixie": ("libkmod2",)}
"""What an ordinary machine also has, since its systemd recommends it: what only recommends it keeps it."""
SUPPORTED: Final = ("bookworm", "trixie")
"""Those that deploy/install.sh installs on. Ubuntu is not among them: Debian's mirrors do not have it."""
_DEBOOTSTRAP_S: Final = 900
_ASK_S: Final = 60

_INSIDE: Final = """\
set -eu
base=$1 here=$2 source=$3 out=$4
mkdir $here/upper $here/work $here/root
mount -t overlay overlay -o lowerdir=$base,upperdir=$here/upper,workdir=$here/work $here/root
cd $here/root
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mkdir mnt/source mnt/out
mount --bind -o ro $source mnt/source
mount --bind $out mnt/out
# How this machine reaches the network, and whom it believes there.
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e $file ] || cp $file .$file
done
printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
exec env TMPDIR=/tmp DEBIAN_FRONTEND=noninteractive chroot . bash -euc "$5"
"""


@cache
def own() -> str:
    """The code name of this machine's release."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.split("=")[1] for line in lines if line.startswith("VERSION_CODENAME"))


@cache
def why_not(release: str) -> str:
    """Why a release cannot be had here, in one line; "" if it can."""
    if _place(release).exists():
        return ""
    script = Path("/usr/share/debootstrap/scripts") / release
    if not script.exists():
        return f"this machine's debootstrap knows no {release}"
    with tempfile.TemporaryDirectory() as folder:
        url = f"{_mirror().rstrip('/')}/dists/{release}/InRelease"
        command = ["/usr/lib/apt/apt-helper", "download-file", url, f"{folder}/InRelease"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    return "" if done.returncode == 0 else f"{release} is not where this machine's packages come from"


def base(release: str) -> Path:
    """The root folder of a small Debian with systemd. It is shared: nobody may write to it."""
    kept = _place(release)
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            fresh = kept.with_suffix(".new")
            subprocess.run(["rm", "-rf", fresh], check=True)
            included = f"--include={','.join(_packages(release))}"
            _run(["debootstrap", "--variant=minbase", included, release, str(fresh), _mirror()], _DEBOOTSTRAP_S)
            fresh.rename(kept)
    return kept


def inside(release: str, script: str, *, source: Path, out: Path, timeout_s: float) -> str:
    """What a shell script prints that root executes on a Debian of its own, with this machine's network.

    It finds `source` in /mnt/source, to be read only, and may write to `out` in /mnt/out. Nothing else of what it does
    stays, and no process of it. A failure is one of the test, with the script's last words.
    """
    with tempfile.TemporaryDirectory(prefix="orch-debian-") as folder:
        unshare = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--propagation=private"]
        places = [base(release), folder, source, out]
        return _run([*unshare, "bash", "-c", _INSIDE, "bash", *map(str, places), script], timeout_s)


def _run(command: list[str], timeout_s: float) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


def _place(release: str) -> Path:
    digest = hashlib.sha256(" ".join([release, *_packages(release)]).encode()).hexdigest()[:12]
    return CACHE / f"debian-{digest}"


def _packages(release: str) -> tuple[str, ...]:
    return (*PACKAGES, *RECOMMENDED.get(release, ()))


@cache
def _mirror() -> str:
    """Where this machine's own packages come from."""
    wanted = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(wanted, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
    found = [words[1] for line in listed.splitlines() if (words := line.split())[0] == own()]
    assert found, f"apt has no source for {own()}: run apt-get update"
    return found[0]
