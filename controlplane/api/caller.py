"""Who makes the call that is being answered. The gate sets it; handlers ask.

The rule: without a gate nobody is known, and handlers do as they do for somebody whom nothing binds: only a server
without certificates has none. Nor has it an audit log.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from controlplane.core import telling
from controlplane.core.trust.rules import Caller
from protos import headers
from protos.answering import Context
from trust.core.identity import Role

_current: ContextVar[Caller | None] = ContextVar("caller", default=None)
_on_begin: ContextVar[Callable[[], None]] = ContextVar("on_begin", default=lambda: None)


@contextlib.contextmanager
def known(caller: Caller, on_begin: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside the block the call is this caller's. `on_begin` is told that what the call is for begins."""
    token, begin_token = _current.set(caller), _on_begin.set(on_begin)
    try:
        yield
    finally:
        _current.reset(token)
        _on_begin.reset(begin_token)


def begins() -> None:
    """To be called by what lasts, such as a command in a container, when nothing stands against it any more."""
    _on_begin.get()()


def required() -> Caller:
    """Who calls. Only for services that a server without a gate does not have."""
    found = _current.get()
    assert found is not None, "this service stands behind a gate"
    return found


def node() -> str | None:
    """The id of the node that calls; None without a gate."""
    found = _current.get()
    if found is None:
        return None
    assert found.identity.role is Role.NODE, "the table lets nodes alone through"
    return found.identity.name


def node_name() -> str:
    """What people call the node that calls, as it joined; empty when that is not known."""
    found = _current.get()
    return found.node_name if found is not None else ""


def fetching_node() -> str | None:
    """The id of the node that fetches; None without a gate, and for an instance, which may have everything."""
    found = _current.get()
    return None if found is None or found.identity.role is Role.CONTROLPLANE else node()


def actor(context: Context) -> str:
    """Who it was, for the record: whom the certificate names, else what the client says of itself."""
    found = _current.get()
    if found is not None:
        return found.identity.name
    for key, value in context.invocation_metadata() or ():
        if key == headers.ACTOR:
            return telling.actor(value if isinstance(value, str) else value.decode(errors="replace"))
    return ""
