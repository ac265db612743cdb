"""Places that have the same thing: each is asked in turn until one answers.

The rule: whatever goes wrong with a mirror is a reason to ask the next one; what goes wrong with the last, which is
the registry that stands in the image's name, is what the person is told, with what the mirrors said behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from images.registry import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from images.registry.repository import Repository

T = TypeVar("T")


class Sources:
    """Repositories in order, for one piece of work; what has failed is asked last from then on."""

    def __init__(self, places: tuple[Repository, ...]) -> None:
        assert places, "a registry itself is always among its sources"
        self._places = list(places)
        self._last = places[-1]

    @property
    def current(self) -> Repository:
        return self._places[0]

    @property
    def count(self) -> int:
        return len(self._places)

    def failed(self, place: Repository) -> None:
        """Somebody else's turn, unless another transfer has seen to that already."""
        if self.current is place:
            self._places.append(self._places.pop(0))

    def drop(self, place: Repository) -> bool:
        """Never ask this one again; False when it is the last."""
        if self._places == [place]:
            return False
        if place in self._places:
            self._places.remove(place)
        return True

    def drop_liars(self, senders: set[Repository]) -> bool:
        """Some of these sent wrong bytes: never ask its mirrors again, or the registry when only it was asked.

        False when nobody is left who could be asked instead.
        """
        liars = senders - {self._last} or senders
        if not set(self._places) - liars:
            return False
        self._places = [place for place in self._places if place not in liars]
        return True

    async def first(self, ask: Callable[[Repository], Awaitable[T]]) -> T:
        """What the first place answers that does; else the error of the registry itself."""
        said: dict[Repository, errors.RegistryError] = {}
        for place in tuple(self._places):
            try:
                return await ask(place)
            except errors.BadConfiguration:
                raise
            except errors.RegistryError as error:
                said[place] = error
                self.failed(place)
        raise _with_mirrors(said, self._last)


def _with_mirrors(said: dict[Repository, errors.RegistryError], last: Repository) -> errors.RegistryError:
    error = said.pop(last, None) or said.popitem()[1]
    for place, other in said.items():
        error.add_note(f"mirror {place.host}: {other}")
    return error
