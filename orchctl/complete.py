"""Completion of names in a shell. Best effort within a short time: a shell's prompt shows no errors."""

from collections.abc import Callable

import click

from orchctl import errors, options, who

TIMEOUT_S = 1.0
MOST = 200


def services(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of services."""
    return _names(context, "service", start)


def tasks_and_services(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of what has output, and of what commands run in."""
    return [*_names(context, "service", start), *_names(context, "task", start)]


def tasks(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of tasks."""
    return _names(context, "task", start)


def nodes(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of nodes."""
    return _names(context, "node", start)


def networks(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of networks."""
    return _names(context, "network", start)


def images(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of images."""
    return _names(context, "image", start)


def stored_images(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Names of images in this machine's store."""
    from images import reference
    from orchctl import stores

    path = context.meta.get(options.STORE) or stores.DEFAULT
    if not path.exists():
        return []  # completion makes no store
    try:
        with stores.opened(path) as store:
            found = sorted(reference.parse(name).familiar for name in store.names())
    except errors.OrchctlError:
        return []
    return [name for name in found if name.startswith(start)][:MOST]


def kind_then_names(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
    """A kind; after it, names of that kind."""
    from orchctl import words

    given = context.params.get(parameter.name or "") or ()
    if not given:
        return [word for word in words.choices() if word.startswith(start)]
    if "/" in given[0]:
        return references(context, parameter, start)
    try:
        return _names(context, words.kind(given[0]).name, start)
    except errors.InvalidInput:
        return []


def references(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """`KIND/NAME`: the kind first, then names of that kind."""
    from orchctl import words

    word, slash, name = start.partition("/")
    if not slash:
        return [f"{kind}/" for kind in words.choices() if kind.startswith(start)]
    try:
        kind = words.kind(word).name
    except errors.InvalidInput:
        return []
    return [f"{word}/{found}" for found in _names(context, kind, name)]


def columns(context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Titles of the columns of the kind that is listed."""
    from orchctl import tables, words

    given = context.params.get("what") or ()
    try:
        kind = words.kind(given[0].partition("/")[0]) if given else None
    except errors.InvalidInput:
        return []
    titles = [column.title for column in tables.columns(kind, wide=True, with_namespace=True)] if kind else []
    sign, typed = ("-", start[1:]) if start.startswith("-") else ("", start)
    return [sign + title for title in titles if title.lower().startswith(typed.lower())]


def explained(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """Paths of the schema, one step at a time."""
    from protos import kinds, schema

    parent, _, last = start.rpartition(".")
    words = parent.split(".") if parent else []
    if not words:
        return [kind.name for kind in kinds.KINDS if kind.name.startswith(last)]
    kind = kinds.by_name(words[0])
    message = kind.message.DESCRIPTOR if kind else None
    for word in words[1:]:
        field = schema.fields_by_yaml_name(message).get(word) if message else None
        message = field.message_type if field and not schema.is_map(field) else None
    names = schema.fields_by_yaml_name(message) if message else {}
    return [f"{parent}.{name}" for name in names if name.startswith(last)]


Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _names(context: click.Context, kind: str, start: str) -> list[str]:
    """Names of objects; none when the control plane does not answer at once."""
    from orchctl import client
    from protos import kinds
    from protos.orch.v1 import control_pb2 as control

    settings = options.settings_of(context)
    namespaced = next(each.namespaced for each in kinds.KINDS if each.name == kind)
    selection = control.ListRequest(kind=kind, namespace=settings.namespace if namespaced else "")
    try:
        with who.known_by(lambda: settings.trust), client.connect(settings.server) as stub:
            listed = stub.List(selection, timeout=TIMEOUT_S).objects
    except errors.OrchctlError:
        return []
    found = sorted(kinds.unwrap(each).meta.name for each in listed)
    return [name for name in found if name.startswith(start)][:MOST]
