"""What the guest holds in which systemd is process 1: its programs, a few of its units, and three units of our own.

One rule: nothing starts but the tests. There is no journal, no udev, no login and no message bus; who wants a manager
of an ordinary user's starts `user@1000.service`.
"""

from tests.vm import archive, files

UNPACKED = files.REPOSITORY / ".cache/vm-systemd"
PROGRAMS = (
    "bin/systemctl",
    "lib/systemd/systemd",
    "lib/systemd/systemd-cgroups-agent",  # tells version 1 that a group is empty
    "usr/bin/systemd-run",
)
_TARGETS = ("basic", "exit", "paths", "shutdown", "sockets", "timers")
UNITS = (
    *(f"lib/systemd/system/{name}.target" for name in (*_TARGETS, "local-fs", "slices", "swap", "sysinit", "umount")),
    *(f"lib/systemd/system/{name}" for name in ("user.slice", "user-.slice.d/10-defaults.conf")),
    *(f"usr/lib/systemd/user/{name}.target" for name in (*_TARGETS, "default")),
    *(f"usr/lib/systemd/user/{name}" for name in ("app.slice", "background.slice", "session.slice")),
    "usr/lib/systemd/user/systemd-exit.service",
)

_TESTS = """\
[Unit]
Description=Orch's tests

[Service]
Type=exec
ExecStart=/sbin/orch-tests
StandardOutput=tty
TTYPath=/dev/console
# When the script cannot even be executed.
FailureAction=poweroff-immediate
"""

_USER_MANAGER = """\
# Debian's unit without PAM and without the login daemon, which need a message bus: the runtime folder is made here.
[Unit]
Description=User Manager for UID %i

[Service]
User=%i
Type=notify
ExecStart=/lib/systemd/systemd --user
Slice=user-%i.slice
KillMode=mixed
Delegate=pids memory cpu
TasksMax=infinity
Environment=XDG_RUNTIME_DIR=/run/user/%i
RuntimeDirectory=user/%i
RuntimeDirectoryMode=0700
"""

_DEFAULT = """\
[Unit]
Description=Orch's tests, and nothing else
Requires=basic.target
Wants=orch-tests.service
"""


def add(payload: archive.Payload) -> None:
    """Add systemd as /sbin/init; it executes /sbin/orch-tests."""
    if not UNPACKED.exists():
        raise files.Unavailable(f"{UNPACKED} is missing; run deploy/setup.sh test")
    payload.add((UNPACKED / name, name) for name in (*PROGRAMS, *UNITS))
    payload.add(_libraries())
    payload.add_link("sbin/init", "/lib/systemd/systemd")
    payload.add_link("var/run", "/run")
    payload.add_text("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    payload.add_text("etc/os-release", "ID=orch-guest\nPRETTY_NAME=The guest\n")
    # Nobody listens where the journal would.
    payload.add_text("etc/systemd/system.conf", "[Manager]\nDefaultStandardOutput=null\nDefaultStandardError=inherit\n")
    payload.add_text("etc/systemd/user.conf", "[Manager]\nDefaultStandardOutput=null\nDefaultStandardError=inherit\n")
    payload.add_text("etc/systemd/system/default.target", _DEFAULT)
    payload.add_text("etc/systemd/system/orch-tests.service", _TESTS)
    payload.add_text("etc/systemd/system/user@.service", _USER_MANAGER)


def _libraries() -> files.Files:
    """The packages' own libraries under their names, and this machine's."""
    folders = [
        UNPACKED / f"{name}/x86_64-linux-gnu{below}" for name in ("lib", "usr/lib") for below in ("", "/systemd")
    ]
    for library in files.linked([UNPACKED / name for name in PROGRAMS], search=folders):
        own = library.is_relative_to(UNPACKED)
        yield library.resolve(), str(library.relative_to(UNPACKED if own else "/"))
