"""What can go wrong with the store; the type says what to do next.

StoreError
├── Conflict        look again: somebody else wrote first
├── Deposed         stop leading: another instance holds the leader's key
├── Compacted       list again: the history after the wanted revision is gone
├── LeaseExpired    grant another lease
├── Temporary       retry later
│   └── Unavailable no endpoint answered, or the answer was lost (`ambiguous`)
└── Fatal           give up: the call itself is wrong
"""

# ruff: noqa: N818 - an error is named after what happened; the type says what to do

from collections.abc import Sequence


class StoreError(Exception):
    """Base of everything a store raises."""


class Conflict(StoreError):
    """At least one expected version did not hold; nothing was written."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        super().__init__(f"changed by somebody else meanwhile: {', '.join(self.keys)}; read again and retry")


class Deposed(StoreError):
    """The fence of a commit no longer stands; nothing was written."""

    def __init__(self, key: str, version: int) -> None:
        self.key = key
        super().__init__(f"no longer the leader: {key} is not at create revision {version} any more; stop leading")


class Compacted(StoreError):
    """The history after the wanted revision is not kept any more."""

    def __init__(self, revision: int, oldest: int) -> None:
        self.oldest = oldest
        super().__init__(f"the history after revision {revision} is gone (it starts at {oldest}); list again")


class LeaseExpired(StoreError):
    """The lease lapsed or was revoked; the keys that hung on it are gone."""

    def __init__(self, lease: int) -> None:
        self.lease = lease
        super().__init__(f"lease {lease:x} has expired; grant another")


class Temporary(StoreError):
    """Nothing is wrong with the call; the same call may succeed later."""


class Unavailable(Temporary):
    """No endpoint gave an answer. `ambiguous`: the write may have happened, so look before writing again."""

    def __init__(self, message: str, *, ambiguous: bool = False) -> None:
        self.ambiguous = ambiguous
        super().__init__(message)


class Fatal(StoreError):
    """The call can never succeed as it is."""
