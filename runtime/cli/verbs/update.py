"""`orchrun update`: change the limits of a container while it runs, from a file or by single flags."""

import re
import sys
from typing import Any, Final

from runtime import cgroupupdate, control, errors, protocol, resources, state
from runtime.cli import bundle
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options
from runtime.fields import Fields

# Flag, what the help calls its value, and the place below `linux.resources`.
_LIMITS: Final = (
    ("--memory", "BYTES", "memory", "limit"),
    ("--memory-swap", "BYTES", "memory", "swap"),
    ("--memory-reservation", "BYTES", "memory", "reservation"),
    ("--kernel-memory", "BYTES", "memory", "kernel"),
    ("--kernel-memory-tcp", "BYTES", "memory", "kernelTCP"),
    ("--cpu-share", "NUMBER", "cpu", "shares"),
    ("--cpu-quota", "MICROSECONDS", "cpu", "quota"),
    ("--cpu-period", "MICROSECONDS", "cpu", "period"),
    ("--cpu-burst", "MICROSECONDS", "cpu", "burst"),
    ("--cpu-idle", "NUMBER", "cpu", "idle"),
    ("--cpu-rt-runtime", "MICROSECONDS", "cpu", "realtimeRuntime"),
    ("--cpu-rt-period", "MICROSECONDS", "cpu", "realtimePeriod"),
    ("--cpuset-cpus", "LIST", "cpu", "cpus"),
    ("--cpuset-mems", "LIST", "cpu", "mems"),
    ("--pids-limit", "NUMBER", "pids", "limit"),
    ("--blkio-weight", "NUMBER", "blockIO", "weight"),
)
_ZERO_IS_A_VALUE: Final = frozenset({"--cpu-burst", "--cpu-idle"})
FLAGS = (
    Flag("--resources", "-r", value="FILE", help="the specification's resources object; - is the standard input"),
    *(Flag(name, value=value, help=f"{place}.{field}") for name, value, place, field in _LIMITS),
)
ARGUMENTS = "[flags] ID"
WORDS_END_FLAGS = False
_SIZE: Final = re.compile(r"(-?\d+)([kKmMgG]?)[bB]?")
_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def run(context: Context, given: Options) -> int:
    """Write the limits: all of them, or none."""
    [container] = given.take("ID")
    wanted = _wanted(given)
    # The shim sends the whole object again; which devices a container may use is decided when it is made.
    wanted.pop("devices", None)
    limits = resources.parse(Fields({"resources": wanted}, "linux"))
    with state.locked(context.root, container):
        known = state.load(context.root, container)
        if known.status == "stopped":
            raise errors.WrongStatus(f"container {container}: cannot be updated, since it is stopped")
        cgroupupdate.update(control.group(known), limits)
    return 0


def _wanted(given: Options) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if path := given.text("--resources"):
        wanted = _read_stdin() if path == "-" else bundle.read_object(path)
    for name, value, place, field in _LIMITS:
        if text := given.text(name):
            wanted[place] = {**(wanted.get(place) or {}), field: text if value == "LIST" else _number(name, text)}
    if not wanted:
        raise errors.InvalidSpec("update: nothing to change; give --resources or a limit")
    return wanted


def _read_stdin() -> dict[str, Any]:
    return protocol.decode(sys.stdin.buffer.read(protocol.MAX_BODY_BYTES + 1))


def _number(name: str, text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise errors.InvalidSpec(f"{name}: {text!r} is no number such as 67108864 or 64m")
    number = int(found[1]) * _UNITS[found[2].lower()]
    if number == 0 and name not in _ZERO_IS_A_VALUE:
        raise errors.InvalidSpec(f"{name}: 0 asks for nothing; leave it out, or give -1 for no limit")
    return number
