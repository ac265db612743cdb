"""What can go wrong between us and a registry, said so that the caller knows what to do next.

::

    ImageError                 (images.errors)
    └── RegistryError
        ├── Unauthorized       log in, or ask for the right
        ├── NotFound           no such repository, tag or blob there: check the name
        ├── Unreachable        nobody answers at that address: check the name, the port and the proxy
        │   └── Untrusted      the two ends cannot agree on TLS: name the CA, or mark the registry as insecure
        ├── Unavailable        cut off, overloaded or failing, and was tried several times: try again later
        ├── BadAnswer          breaks the protocol or a bound: give up on this registry
        └── BadConfiguration   registries.yaml, config.json or a credential helper: repair the file that is named

`NotFound` and `BadAnswer` are also their namesakes of `images.errors`, for callers that do not care where an image
comes from.
"""
# ruff: noqa: N818 - the names say what happened; that they are errors is said by the root of the tree

from __future__ import annotations

from images import errors


class RegistryError(errors.ImageError):
    """The root of this tree: one line for people, no traceback needed."""


class Unauthorized(RegistryError):
    """The registry wants to know who asks, or that one may not."""


class NotFound(RegistryError, errors.NotFound):
    """The registry has no such thing, or does not admit it."""


class Unreachable(RegistryError):
    """No connection: the name, the address, the port or the proxy is wrong, or nobody is there."""


class Untrusted(Unreachable):
    """No TLS: the certificate is not one that we believe, or the other end speaks plain HTTP."""


class Unavailable(RegistryError):
    """Trouble that passes. `retry_after_s` is what the registry itself asked for."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadAnswer(RegistryError, errors.InvalidImage):
    """An answer that the protocol does not allow, or that passes a bound."""


class BadConfiguration(RegistryError):
    """A file or helper of ours says something that cannot be meant."""
