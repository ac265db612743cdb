"""`linux.devices`: nodes to make."""

from runtime.fields import Fields
from runtime.spec import paths, process
from runtime.values import frozen


@frozen
class Device:
    """A device node to make under the root's /dev."""

    path: str
    kind: str  # c, b or p
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


def parse_device(fields: Fields) -> Device:
    """Read an entry of `linux.devices`; raises InvalidSpec."""
    device = Device(
        path=paths.absolute(fields, "path"),
        kind={"u": "c"}.get(kind := fields.text("type"), kind),
        major=fields.number("major", low=0, high=2**32 - 1, default=0),
        minor=fields.number("minor", low=0, high=2**32 - 1, default=0),
        mode=fields.number("fileMode", low=0, high=0o177777, default=0o666) & 0o7777,
        uid=fields.number("uid", low=0, high=process.MAX_ID, default=0),
        gid=fields.number("gid", low=0, high=process.MAX_ID, default=0),
    )
    fields.finish()
    if device.kind not in {"b", "c", "p"}:
        raise fields.refuse("type", f"{device.kind!r} must be c, u, b or p")
    if not device.path.startswith("/dev/"):
        raise fields.refuse("path", f"{device.path!r} must be below /dev")
    return device
