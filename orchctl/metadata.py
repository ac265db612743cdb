"""Changing labels and annotations: what was typed → one request an object."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from orchctl import client, errors, options, terminal, words
from protos import kinds
from protos.orch.v1 import control_pb2 as control

_CHANGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*(=.*|-)", re.ASCII | re.DOTALL)

Which = Literal["labels", "annotations"]
_SAID = {"labels": "labelled", "annotations": "annotated"}


def change(
    settings: options.Settings,
    references: Sequence[tuple[kinds.Kind, str]],
    changes: Sequence[str],
    which: Which,
    *,
    overwrite: bool,
) -> None:
    """Changes the objects one after the other, and tells each."""
    added, removed = parse(changes, which)
    with client.connect(settings.server) as stub:
        for kind, name in references:
            reference = control.ObjectReference(
                kind=kind.name, namespace=settings.namespace if kind.namespaced else "", name=name
            )
            request = control.UpdateMetaRequest(reference=reference, overwrite=overwrite)
            if which == "labels":
                request.set_labels.update(added)
                request.remove_labels.extend(removed)
            else:
                request.set_annotations.update(added)
                request.remove_annotations.extend(removed)
            response = stub.UpdateMeta(request, timeout=client.CALL_TIMEOUT_S)
            terminal.say(f"{kind.name}/{name} {_SAID[which] if response.changed else 'unchanged'}")


def split(what: Sequence[str]) -> tuple[list[tuple[kinds.Kind, str]], list[str]]:
    """The objects that are named, and the changes behind them: from the first word on that is one.

    `service web tier=front` → (service, web), and `tier=front`. A name never ends in `-`, and holds no `=`.
    """
    first = next((index for index, word in enumerate(what) if "=" in word or word.endswith("-")), len(what))
    return words.split_references(what[:first] or ("",)), list(what[first:])


def parse(changes: Sequence[str], which: Which) -> tuple[Mapping[str, str], Sequence[str]]:
    """`disk=ssd zone-` → what is set, and what is removed."""
    if not changes:
        raise errors.InvalidInput("nothing to change", hint="write it like key=value, or key- to remove it")
    added: dict[str, str] = {}
    removed: list[str] = []
    for word in changes:
        if not _CHANGE.fullmatch(word):
            raise errors.InvalidInput(f"not a change of {which}: {word!r}", hint="write it like disk=ssd or disk-")
        key, sign, value = word.partition("=")
        if sign:
            added[key] = value
        else:
            removed.append(key.removesuffix("-"))
    if both := added.keys() & set(removed):
        raise errors.InvalidInput(f"{min(both)!r} is set and removed at once")
    return added, removed
