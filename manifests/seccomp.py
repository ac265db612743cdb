"""What a filter of system calls in a manifest has to be, as far as that can be told without a node.

A profile is a JSON object as Docker takes it: the `linux.seccomp` of the OCI runtime specification, with Docker's
`archMap`, `includes` and `excludes`. Names of system calls are not checked: a node knows those of its own kernel.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from manifests import quoting, suggest

DEFAULT: Final = "default"
UNCONFINED: Final = "unconfined"
WORDS: Final = (DEFAULT, UNCONFINED)
ACTIONS: Final = (
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
)
"""Without SCMP_ACT_NOTIFY, which needs a program on the node that answers."""
OPERATORS: Final = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
MAX_GROUPS: Final = 1000
"""Of a profile. Docker's has about thirty."""


_VERSION: Final = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}(\.[0-9]{1,4})?", re.ASCII)


class _Wrong(ValueError):  # noqa: N818 - the profile is
    """What is wrong, and where in the profile."""


def problem(text: str) -> tuple[str, str]:
    """What is wrong with the field's text, and the remedy; two empty texts when nothing is."""
    if text in WORDS:
        return "", ""
    if not text.lstrip().startswith("{"):
        hint = suggest.did_you_mean(text, WORDS) or 'write "default", "unconfined", or the path of a profile'
        return f"{quoting.shown(text)} is not a filter of system calls", hint
    try:
        _profile(json.loads(text))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}", ""
    except RecursionError:
        return "not a profile: values inside values are too deep", ""
    except _Wrong as error:
        message, _, hint = str(error).partition("; ")
        return message, hint
    return "", ""


def _profile(profile: Any) -> None:
    _known_keys(profile, _PROFILE, "")
    _action(profile, "defaultAction", "")
    groups = profile.get("syscalls") or []
    if len(groups) > MAX_GROUPS:
        raise _Wrong(f"syscalls: {len(groups)} groups, at most {MAX_GROUPS} are allowed")
    for index, group in enumerate(groups):
        _group(group, f"syscalls[{index}].")


def _group(group: Any, where: str) -> None:
    _known_keys(group, _GROUP, where)
    _action(group, "action", where)
    if not group.get("names") and not group.get("name"):
        raise _Wrong(f"{where}names: needs at least one system call")
    for index, condition in enumerate(group.get("args") or []):
        _known_keys(condition, _CONDITION, f"{where}args[{index}].")
        _one_of(condition.get("op"), OPERATORS, f"{where}args[{index}].op")
    for key in ("includes", "excludes"):
        _known_keys(group.get(key) or {}, _FILTER, f"{where}{key}.")


def _action(values: Mapping[str, Any], key: str, where: str) -> None:
    if values.get(key) == "SCMP_ACT_NOTIFY":
        raise _Wrong(f"{where}{key}: SCMP_ACT_NOTIFY needs a program that answers; use SCMP_ACT_ERRNO")
    _one_of(values.get(key), ACTIONS, where + key)


def _one_of(word: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(word, str) or word not in known:
        shown = quoting.shown(word) if isinstance(word, str) else "what is there"
        hint = (suggest.did_you_mean(word, known) if isinstance(word, str) else "") or f"known are {', '.join(known)}"
        raise _Wrong(f"{where}: {shown} is not known; {hint}")


def _known_keys(values: Any, known: Mapping[str, Callable[[Any], bool]], where: str) -> None:
    """Only these keys, with values of these types. A key that nobody reads would be a rule that does not hold."""
    if not isinstance(values, dict):
        raise _Wrong(f"{where.removesuffix('.') or 'the profile'}: not a JSON object")
    for key, value in values.items():
        if key not in known:
            hint = suggest.did_you_mean(key, known) or f"known are {', '.join(known)}"
            raise _Wrong(f"{where}{key}: unknown field; {hint}")
        if value is not None and not known[key](value):
            raise _Wrong(f"{where}{key}: a value of another type")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_version(value: Any) -> bool:
    """`4.8`."""
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_map_of_machines(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and _is_text(entry.get("architecture"))
        and _is_texts(entry.get("subArchitectures") or [])
        for entry in value
    )


_PROFILE: Final = {
    "defaultAction": _is_text,
    "defaultErrnoRet": _is_number,
    "architectures": _is_texts,
    "archMap": _is_map_of_machines,
    "flags": _is_texts,
    "syscalls": _is_list,
}
_GROUP: Final = {
    "names": _is_texts,
    "name": _is_text,
    "action": _is_text,
    "errnoRet": _is_number,
    "args": _is_list,
    "comment": _is_text,
    "includes": _is_object,
    "excludes": _is_object,
}
_CONDITION: Final = {"index": _is_number, "value": _is_number, "valueTwo": _is_number, "op": _is_text}
_FILTER: Final = {"caps": _is_texts, "arches": _is_texts, "minKernel": _is_version}
