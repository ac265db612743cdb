"""How a bug is planted: one function of the product is replaced by a plausibly wrong one for a while."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """`bug` is wrong while its context is open."""

    name: str
    bug: Callable[[], AbstractContextManager[None]]
    caught_by: frozenset[str]
    hint: int


def instead(owner: object, name: str, wrong: object) -> Callable[[], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        right = getattr(owner, name)
        setattr(owner, name, wrong)
        try:
            yield
        finally:
            setattr(owner, name, right)

    return planted
