"""`mounts`, the propagation of the root, and our extension, the overlay."""

from typing import Any, Final

from runtime import mountoptions, values
from runtime.fields import Fields
from runtime.spec import paths
from runtime.spec.mappings import IdMaps, parse_mappings
from runtime.values import frozen

_UNLABELLED: Final = frozenset({"proc", "sysfs", "mqueue", "cgroup"})
"""Kinds whose files SELinux labels by itself, and takes no context for."""


@frozen
class Mount:
    """A mount below the root, in the order of the configuration."""

    destination: str
    kind: str
    source: str
    options: mountoptions.MountOptions
    path: str  # the field, for messages
    id_maps: IdMaps | None = None  # None: not idmapped, or with `options.idmap` as the user namespace is


@frozen
class Overlay:
    """Our extension beside the bundle: the root is an overlay of layers (top first) and a writable folder."""

    lower: tuple[str, ...]
    upper: str
    work: str


def parse_mount(fields: Fields, label: str = "") -> Mount:
    """Read an entry of `mounts`; raises InvalidSpec. The label is `linux.mountLabel`."""
    destination = paths.absolute(fields, "destination")
    kind, source, words = fields.text("type", default=""), fields.text("source", default=""), fields.texts("options")
    id_maps = parse_mappings(fields)
    fields.finish()
    options = mountoptions.parse(words, kind=kind, path=fields.path)
    if destination == "/":
        raise fields.refuse("destination", "the root itself is given by root.path or the overlay")
    if not options.bind and not kind:
        raise fields.refuse("type", "is required, unless options hold bind or rbind")
    if options.bind and not source.startswith("/"):
        raise fields.refuse("source", f"{source!r} must be an absolute path for a bind mount")
    if not options.bind and (options.idmap or id_maps is not None):
        raise fields.refuse("uidMappings", "is for bind mounts only, and so are the options idmap and ridmap")
    if options.tmpcopyup and destination == "/dev":
        raise fields.refuse("options", "'tmpcopyup' is not for /dev, which the runtime fills itself")
    if label and not options.bind and kind not in _UNLABELLED:
        options = values.replace(options, data=(*options.data, f"context={label}"))
    return Mount(destination=destination, kind=kind, source=source, options=options, path=fields.path, id_maps=id_maps)


def root_propagation(linux: Fields) -> tuple[int, bool]:
    """The flag of `linux.rootfsPropagation`, or 0, and whether what is mounted below `root.path` gets it as well."""
    word = linux.text("rootfsPropagation", default="")
    return mountoptions.propagation_flags(word, linux.at("rootfsPropagation")) if word else (0, False)


def parse_overlay(value: Any) -> Overlay:
    """Read the overlay extension."""
    fields = Fields(value, "overlay")
    overlay = Overlay(lower=fields.texts("lower"), upper=fields.text("upper"), work=fields.text("work"))
    fields.finish()
    for name, path in (*(("lower", path) for path in overlay.lower), ("upper", overlay.upper), ("work", overlay.work)):
        if not path.startswith("/"):
            raise fields.refuse(name, f"{path!r} must be an absolute path")
    if not overlay.lower:
        raise fields.refuse("lower", "needs at least one folder")
    return overlay
