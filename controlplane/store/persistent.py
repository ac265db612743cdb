"""Maps that can be kept while they change: a snapshot of 100,000 entries costs microseconds.

The entries lie in shards of about a hundred. A frozen `Map` and the `Builder` that goes on editing share all shards;
an edit copies the one shard that it touches, once per snapshot. The order of iteration depends on the keys and the
history of edits only, never on the process, so a simulation can be replayed.
"""

import itertools
import zlib
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

SHARD_ENTRIES = 128
"""The mean that a shard may reach before there are eight times as many shards."""
GROWTH = 8


class Map(Mapping[str, V_co]):
    """A read-only map; equal to any mapping with the same entries."""

    __slots__ = ("_length", "_shards")

    def __init__(self, shards: tuple[dict[str, V_co], ...] = ({},), length: int = 0) -> None:
        self._shards = shards
        self._length = length

    def __getitem__(self, key: str) -> V_co:
        shards = self._shards
        return shards[zlib.crc32(key.encode()) % len(shards)][key]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return self._length

    def values(self) -> ValuesView[V_co]:
        return _Values(self)

    def items(self) -> ItemsView[str, V_co]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"Map({dict(self)!r})"


class _Values(ValuesView[V]):
    """Walks the shards instead of looking up every key: twenty times as fast."""

    _mapping: Map[V]

    def __iter__(self) -> Iterator[V]:
        return itertools.chain.from_iterable(shard.values() for shard in self._mapping._shards)  # noqa: SLF001


class _Items(ItemsView[str, V]):
    _mapping: Map[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return itertools.chain.from_iterable(shard.items() for shard in self._mapping._shards)  # noqa: SLF001


class Builder(Generic[V]):
    """Edits on top of a map, which stays as it is."""

    __slots__ = ("_frozen", "_length", "_owned", "_shards")

    def __init__(self, base: Map[V] | None = None) -> None:
        self._frozen: Map[V] | None = base or Map()
        self._shards = list(self._frozen._shards)  # noqa: SLF001 - the two classes are one data structure
        self._length = len(self._frozen)
        self._owned: set[int] = set()  # shards that no frozen map shares

    def get(self, key: str) -> V | None:
        return self._shards[self._shard_of(key)].get(key)

    def set(self, key: str, value: V) -> None:
        shard = self._own(self._shard_of(key))
        self._length += key not in shard
        shard[key] = value
        if self._length > SHARD_ENTRIES * len(self._shards):
            self._grow()

    def remove(self, key: str) -> None:
        """KeyError when it is not there."""
        del self._own(self._shard_of(key))[key]
        self._length -= 1

    def freeze(self) -> Map[V]:
        """The map as it is now; the same object as before when nothing was edited."""
        if self._frozen is None:
            self._frozen = Map(tuple(self._shards), self._length)
            self._owned.clear()
        return self._frozen

    def _shard_of(self, key: str) -> int:
        return zlib.crc32(key.encode()) % len(self._shards)

    def _own(self, index: int) -> dict[str, V]:
        self._frozen = None
        if index not in self._owned:
            self._owned.add(index)
            self._shards[index] = dict(self._shards[index])
        return self._shards[index]

    def _grow(self) -> None:
        """Rare enough to cost each entry a constant: each time there are eight times as many entries."""
        entries = [item for shard in self._shards for item in shard.items()]
        self._shards = [{} for _ in range(GROWTH * len(self._shards))]
        self._owned = set(range(len(self._shards)))
        for key, value in entries:
            self._shards[self._shard_of(key)][key] = value
