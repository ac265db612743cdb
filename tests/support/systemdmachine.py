"""A machine with Debian's systemd as process 1 in a few seconds: namespaces and an overlay over a Debian that is kept.

It has its own processes, mounts, names, network and control groups; the kernel is this one, and its parameters are
everybody's but for those of the network. Whatever ends its first process takes all of it along.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import debians
from tests.support.waiting import until

BOOT_S, COMMAND_S = 60, 280
_GROUPS = Path("/sys/fs/cgroup")
_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]

_BOOT = """\
set -eu
base=$1 here=$2 unified=$3
mkdir -p $here/upper $here/work $here/root
mount -t overlay overlay -o lowerdir=$base,upperdir=$here/upper,workdir=$here/work $here/root
cd $here/root
hostname machine
# As every installer of Debian leaves it; a package would make it, and not take it away again.
[ -e etc/hosts ] || echo '127.0.0.1 localhost' >etc/hosts
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
mount -t tmpfs tmpfs tmp
mkdir -p dev/pts dev/shm var/lib/orch
# An overlay cannot lie on an overlay, and this is where containers' layers are.
mount -t tmpfs tmpfs var/lib/orch
for name in null zero full random urandom tty fuse; do
  [ ! -e /dev/$name ] || { touch dev/$name; mount --bind /dev/$name dev/$name; }
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
# Debian's own kernel parameters are not for a machine that shares its kernel. (/proc/sys cannot be made read-only: a
# container with users of its own may mount no /proc where another hides something of it.)
ln -sf /dev/null etc/systemd/system/systemd-sysctl.service
umount -l sys/fs/cgroup
shift 3
for lent in "$@"; do
  mkdir -p mnt/$(basename $lent)
  mount --bind -o ro $lent mnt/$(basename $lent)
done
ip link set lo up
ip link add uplink type veth peer name outside
ip address add 10.99.0.1/24 dev uplink
ip link set uplink up
ip link set outside up
mkdir .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init systemd.show_status=0 \
  systemd.unified_cgroup_hierarchy=$unified
"""
ADDRESS = "10.99.0.1"
"""The machine's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One that runs. `pid` is its process 1."""

    pid: int

    def run(self, *command: str, code: int | None = 0) -> str:
        """What a command there prints on both ways, once it has ended as it should; None: however."""
        enter = ["nsenter", "--target", str(self.pid), "--all", "--wdns=/", "env", "-i", *_ENVIRONMENT]
        done = subprocess.run(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert code is None or done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def sh(self, script: str, code: int | None = 0) -> str:
        """The same for a line of shell."""
        return self.run("bash", "-c", script, code=code)

    def put(self, path: str, text: str) -> None:
        """A file there."""
        Path(f"/proc/{self.pid}/root{path}").write_text(text)


@contextlib.contextmanager
def running(folder: Path, *lent: Path, release: str) -> Iterator[Machine]:
    """A machine with a release of Debian whose files are in a folder, with others below its /mnt, to be read only."""
    base = debians.base(release)
    script = folder / "boot.sh"
    script.write_text(_BOOT)
    with _own_groups(f"{folder.name}-{os.getpid()}") as groups:  # other checkouts may have theirs
        unified = "1" if (_GROUPS / "cgroup.controllers").exists() else "0"
        join = "; ".join(f"echo $$ >{group}/cgroup.procs" for group in groups)
        unshare = "exec unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child --propagation private"
        here = " ".join(map(str, (base, folder, unified, *lent)))
        with (folder / "console").open("wb") as console:
            command = ["bash", "-c", f"{join}; {unshare} bash {script} {here}"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            machine = Machine(pid=_first(process))
            until(lambda: _is_up(machine), what=f"systemd has started: {folder / 'console'}", timeout_s=BOOT_S)
            _mount_the_rest(machine)
            yield machine
        finally:
            _end(process)


def _first(process: subprocess.Popen[bytes]) -> int:
    """The machine's process 1, once it is systemd."""

    def look() -> int:
        assert process.poll() is None, "the machine has ended"
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/sbin/init"):
                    return int(pid)
        return 0

    return until(look, what="the machine has booted", timeout_s=BOOT_S)


def _is_up(machine: Machine) -> bool:
    said = machine.run("systemctl", "is-system-running", code=None)
    return said.strip() in {"running", "degraded"}


def _mount_the_rest(machine: Machine) -> None:
    """Controllers of version 1 that systemd wants together with others, and that are alone on this kernel."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        names = line.split(":")[1]
        if names and "=" not in names and not (_GROUPS / "cgroup.controllers").exists():
            at = f"/sys/fs/cgroup/{names}"
            machine.sh(
                f"mountpoint -q {at} || {{ mount -o remount,rw /sys/fs/cgroup; mkdir -p {at}; "
                f"mount -t cgroup -o {names} cgroup {at}; }}"
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """`unshare --kill-child` takes process 1 along, and that everything."""
    first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in first:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    process.kill()
    process.wait()


@contextlib.contextmanager
def _own_groups(name: str) -> Iterator[Sequence[Path]]:
    """A control group for the machine in every hierarchy: it sees nothing above."""
    tops = [_GROUPS] if (_GROUPS / "cgroup.controllers").exists() else [path.parent for path in _GROUPS.glob("*/tasks")]
    tops += [path.parent for path in _GROUPS.glob("unified/cgroup.procs")]
    # Another run on this computer may have a machine of this name.
    groups = [top / f"orch-test-{name}-{os.getpid()}" for top in tops]
    try:
        for group in groups:
            group.mkdir()
            for given in ("cpuset.cpus", "cpuset.mems"):  # version 1 begins with none
                if (group / given).exists() and not (group / given).read_text().strip():
                    (group / given).write_text((group.parent / given).read_text())
        yield groups
    finally:
        for group in groups:
            until(lambda group=group: _remove(group), what=f"{group} is empty", timeout_s=20)


def _remove(group: Path) -> bool:
    """Whether a group and all below are gone."""
    if not group.exists():
        return True
    with contextlib.suppress(OSError):
        for below in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            below.rmdir()
        group.rmdir()
    return not group.exists()


LIST_PROCESSES = (
    "for each in /proc/[0-9]*; do { parent=$(sed -n 's/^PPid:[[:space:]]*//p' $each/status) && "
    "echo ${each#/proc/} $parent $(tr '\\0' ' ' <$each/cmdline); } 2>/dev/null; done; true"
)
"""As `ps`, which is not there before the installation and after it."""


def processes(machine: Machine, name: str) -> list[str]:
    """The pids of those with this in their command line; but for a shell's children that have not executed theirs."""
    found = {}
    for line in machine.sh(LIST_PROCESSES).splitlines():
        pid, parent, *command = line.split(" ", 2)  # one that has ended has no command line any more
        if command and re.search(name, command[0]):
            found[pid] = parent
    return [pid for pid, parent in found.items() if parent not in found]


def main_pid(machine: Machine, unit: str = "orch-agent") -> str:
    return machine.sh(f"systemctl show --value --property=MainPID {unit}").strip()


READ_METRICS = """\
import http.client, socket, ssl, sys
folder, address, port, name = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{folder}/roots.pem")
context.load_cert_chain(f"{folder}/identity.pem")
with context.wrap_socket(socket.create_connection((address, int(port)), timeout=20), server_hostname=name) as link:
    link.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: orch\\r\\n\\r\\n")
    answer = http.client.HTTPResponse(link)
    answer.begin()
    print(answer.status, answer.read().decode())
"""
"""A page of metrics, as Prometheus reads it."""
