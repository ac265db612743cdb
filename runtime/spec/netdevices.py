"""`linux.netDevices`: the host's network interfaces that become the container's."""

from runtime import errors
from runtime.fields import Fields

_MAX_NAME_BYTES = 15


def parse_net_devices(linux: Fields) -> dict[str, str]:
    """The names on the host and in the container; raises InvalidSpec."""
    fields = linux.maybe_child("netDevices")
    if fields is None:
        return {}
    found: dict[str, str] = {}
    for name in fields.names():
        device = fields.child(name)
        found[name] = device.text("name", default="") or name
        device.finish()
        _check_name(fields.at(name), name)
        _check_name(device.at("name"), found[name])
    for name, inside in found.items():
        if list(found.values()).count(inside) > 1:
            raise fields.refuse(name, f"another device is to be called {inside}, too")
    fields.finish()
    return found


def _check_name(where: str, name: str) -> None:
    """What the kernel takes (net/core/dev.c, dev_valid_name), but for templates such as eth%d."""
    plain = name.isascii() and name.isprintable() and not set(name) & set("/:% ")
    if not plain or name in {".", ".."} or not 1 <= len(name) <= _MAX_NAME_BYTES:
        message = f"{where}: {name!r} must be a name of 1 to {_MAX_NAME_BYTES} characters, without spaces, / : or %"
        raise errors.InvalidSpec(message)
