"""The words that people use for kinds (`svc`, `tasks`) and the names that objects go by on the screen."""

import difflib
from collections.abc import Iterable

from images import errors as image_errors
from images import reference
from orchctl.errors import InvalidInput
from protos import kinds

_SHORT = {
    "svc": "service",
    "rev": "revision",
    "no": "node",
    "img": "image",
    "net": "network",
    "ev": "event",
    "ep": "endpoints",
    "endpoint": "endpoints",
    "endpoints": "endpoints",
}
ALL = "all"
IN_ALL = ("service", "task")
"""What `get all` shows: what runs in a namespace, and for which service."""


def kind(word: str) -> kinds.Kind:
    """`services`, `Service`, `svc` → the kind. InvalidInput with the nearest words."""
    small = word.lower()
    name = _SHORT.get(small) or small.removesuffix("s")
    found = kinds.by_name(name)
    if found is None:
        near = difflib.get_close_matches(name, [each.name for each in kinds.KINDS], n=1)
        known = ", ".join(each.name for each in kinds.KINDS)
        raise InvalidInput(f"there is no kind {word!r}", hint=f"did you mean {near[0]}?" if near else f"kinds: {known}")
    return found


def choices() -> list[str]:
    """The words to complete a kind with."""
    return [each.name for each in kinds.KINDS]


def plural(kind_: kinds.Kind) -> str:
    return kind_.name if kind_.name.endswith("s") else f"{kind_.name}s"


def short(value: kinds.StoredObject) -> str:
    """`service/hello`: what `-o name` prints, and what `delete` understands."""
    return f"{kinds.of(value).name}/{value.meta.name or value.meta.id}"


def named(value: kinds.StoredObject, name: str) -> bool:
    """Whether the object goes by this name or id."""
    return name in {value.meta.name, value.meta.id}


def meant(kind_: kinds.Kind, name: str) -> str:
    """The name that an object is stored under: `hello` is the image `hello:latest`."""
    if kind_.name != "image":
        return name
    try:
        return reference.parse(name).familiar
    except image_errors.InvalidReference:
        return name


def service_name(text: str) -> str:
    """`web`, `service/web` or `svc/web` → `web`, where a service is meant. InvalidInput for any other kind."""
    word, slash, name = text.partition("/")
    if not slash:
        return text
    if kind(word).name != "service" or not name:
        raise InvalidInput(f"not a service: {text!r}", hint="write the service's name, such as `web` or `service/web`")
    return name


def split_references(words: Iterable[str]) -> list[tuple[kinds.Kind, str]]:
    """`service hello web` or `service/hello task/web-1-x` → the kinds and names that are meant."""
    given = list(words)
    if given and all("/" in word for word in given):
        # An image's name may hold a slash itself; then the kind stands before the first one.
        parts = [word.partition("/") for word in given]
        pairs = [(kind(first), name) for first, _, name in parts if name]
    else:
        pairs = [(kind(given[0]), name) for name in given[1:]] if len(given) > 1 else []
    if not pairs or len(pairs) < len(given) - 1:
        raise InvalidInput("a kind and a name are needed", hint="such as `service hello` or `service/hello`")
    return [(kind_, meant(kind_, name)) for kind_, name in pairs]
