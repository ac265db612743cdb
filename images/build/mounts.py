"""`RUN --mount=type=…`: what each type takes, and what is wrong otherwise.

Values may hold variables, so that their form is looked at twice: when the file is read, where they hold none, and when
they are replaced. `type` and `from` hold none: they decide what is built, before anything is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from images.build import instructions, mistakes, options, quantities

_OWNED = frozenset({"mode", "uid", "gid"})
KEYS = {
    "bind": frozenset({"target", "source", "from", "rw"}),
    "cache": frozenset({"target", "source", "from", "rw", "id", "sharing"}) | _OWNED,
    "tmpfs": frozenset({"target", "size"}),
    "secret": frozenset({"target", "id", "source", "env", "required"}) | _OWNED,
}
_OTHER_NAMES = {"src": "source", "dst": "target", "destination": "target", "readwrite": "rw", "readonly": "ro"}
_SWITCHES = frozenset({"rw", "ro", "required"})
_SHARING = ("shared", "private", "locked")
_VARIABLE_FREE = ("from", "type")
_MAX_ID = (1 << 32) - 2


def read(text: str, place: instructions.Place) -> instructions.Mount:
    """One mount as written. Raises InvalidDockerfile."""
    given = _given(text, place)
    kind = given.pop("type", "bind").lower()
    if kind == "ssh":
        raise mistakes.at(place, "--mount=type=ssh is not supported; fetch beforehand, or give a key as a secret")
    if kind not in KEYS:
        raise mistakes.at(place, f"--mount=type={mistakes.shown(kind)}; {mistakes.near(kind, KEYS)}")
    _check_keys(kind, given, place)
    return _mount(kind, given, place)


def _given(text: str, place: instructions.Place) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = _OTHER_NAMES.get(key.lower(), key.lower())
        if not equals and key not in _SWITCHES:
            raise mistakes.at(place, f"--mount: {mistakes.shown(part)} has no value; write {mistakes.shown(key)}=VALUE")
        if key in _VARIABLE_FREE and "$" in value:
            raise mistakes.at(place, f"--mount: {key} takes no variables; name a stage: FROM {value} AS NAME")
        if key in given:
            raise mistakes.at(place, f"--mount: {key} is given twice; leave one")
        given[key] = value if equals else "true"
    return given


def _check_keys(kind: str, given: dict[str, str], place: instructions.Place) -> None:
    known = KEYS[kind] | ({"ro"} if "rw" in KEYS[kind] else frozenset())
    for key in given:
        if key not in known:
            near = mistakes.near(key, known)
            raise mistakes.at(place, f"--mount=type={kind}: {mistakes.shown(key)} is not one of its keys; {near}")
    if kind == "secret":
        _name_secret(given, place)
    if kind != "secret" and not given.get("target"):
        raise mistakes.at(place, f"--mount=type={kind} has no target; write target=/PATH")


def _name_secret(given: dict[str, str], place: instructions.Place) -> None:
    """`source` is the old word for `id`."""
    if "source" in given and "id" not in given:
        given["id"] = given.pop("source")
    if "source" in given or not {"id", "target", "env"} & given.keys():
        raise mistakes.at(place, "--mount=type=secret: which one; write id=NAME")


def _mount(kind: str, given: dict[str, str], place: instructions.Place) -> instructions.Mount:
    switches = {key: _switch(key, given[key], place) for key in _SWITCHES & given.keys()}
    writable = switches.get("rw", not switches["ro"] if "ro" in switches else kind in {"cache", "tmpfs"})
    found = instructions.Mount(
        type=kind,
        from_=given.get("from", ""),
        writable=writable,
        required=switches.get("required", False),
        **{key: given[key] for key in _texts() & given.keys()},
    )
    _check_values(found, place)
    return found


def _texts() -> set[str]:
    return {field.name for field in fields(instructions.Mount)} - {"type", "from_", "writable", "required"}


def _switch(key: str, value: str, place: instructions.Place) -> bool:
    if value.lower() not in options.TRUE | options.FALSE:
        raise mistakes.at(place, f"--mount: {key}={mistakes.shown(value)}; write true or false")
    return value.lower() in options.TRUE


def expanded(mount: instructions.Mount, one: Callable[[str], str], place: instructions.Place) -> instructions.Mount:
    """The mount with its variables replaced and its values checked."""
    found = replace(mount, **dict[str, Any]((key, one(getattr(mount, key))) for key in _texts()))
    _check_values(found, place)
    return found


def _check_values(mount: instructions.Mount, place: instructions.Place) -> None:
    told = f"--mount=type={mount.type}"
    if "$" not in mount.sharing and mount.sharing not in _SHARING:
        raise mistakes.at(
            place, f"{told}: sharing={mistakes.shown(mount.sharing)}; {mistakes.near(mount.sharing, _SHARING)}"
        )
    for key in ("uid", "gid"):
        value = getattr(mount, key)
        if value and "$" not in value and quantities.whole_number(value, most=_MAX_ID) is None:
            raise mistakes.at(place, f"{told}: {key}={mistakes.shown(value)}; write a number")
    try:
        if mount.size and "$" not in mount.size:
            quantities.size_bytes(mount.size)
        if mount.mode and "$" not in mount.mode and quantities.mode(mount.mode).absolute is None:
            raise mistakes.at(place, f"{told}: mode={mistakes.shown(mount.mode)}; write it as a number: 0755")
    except ValueError as error:
        raise mistakes.at(place, f"{told}: {error}") from error
