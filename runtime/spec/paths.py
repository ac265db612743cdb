"""Absolute paths, as several parts of the configuration have them."""

import posixpath

from runtime.fields import Fields


def absolute(fields: Fields, name: str, *, default: str | None = None) -> str:
    """An absolute path without needless parts. Raises InvalidSpec."""
    path = fields.text(name, default=default)
    if not path.startswith("/"):
        raise fields.refuse(name, f"{path!r} must be an absolute path")
    return posixpath.normpath("/" + path.lstrip("/"))


def absolute_all(fields: Fields, name: str) -> tuple[str, ...]:
    """A list of absolute paths, as they are. Raises InvalidSpec."""
    paths = fields.texts(name)
    for index, path in enumerate(paths):
        if not path.startswith("/"):
            raise fields.refuse(f"{name}[{index}]", f"{path!r} must be an absolute path")
    return paths
