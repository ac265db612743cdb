"""What stays although the store names it not yet: blobs of pushes, and images that are about to have their names.

The rule: a hold ends when the cache has shown the name, since the store keeps the image from then on, or when it has
lapsed. Nothing else ends one: a name that the cache does not show may be in the store all the same, when the cache is
behind, or when nobody knows whether a write was carried out.
"""

import time
from collections.abc import Callable, Iterable, Mapping

HOLD_S = 600.0
"""How long something is kept after the last word about it."""
MANY = 10_000
"""From here on those that have lapsed are looked for."""


class Holds:
    """`clock`: seconds that nobody sets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._blobs: dict[str, float] = {}
        self._expected: dict[tuple[str, str], float] = {}
        """Images by their name in the store and their digest."""

    def keep(self, blobs: Iterable[str]) -> None:
        """Somebody is pushing them."""
        if len(self._blobs) > MANY:
            self.lapse()
        self._blobs.update(dict.fromkeys(blobs, self._clock() + HOLD_S))

    def expect(self, name: str, digest: str, blobs: Iterable[str]) -> None:
        """The image is whole, and about to be written under its name: it holds its blobs from here on."""
        self._expected[name, digest] = self._clock() + HOLD_S
        for blob in blobs:
            self._blobs.pop(blob, None)

    def note(self, names: Mapping[str, str]) -> None:
        """What the cache shows: digests by name."""
        for name, digest in [key for key in self._expected if names.get(key[0]) == key[1]]:
            del self._expected[name, digest]

    def lapse(self) -> None:
        """Forget what nobody has spoken of for long."""
        now = self._clock()
        self._blobs = {blob: until for blob, until in self._blobs.items() if until > now}
        self._expected = {key: until for key, until in self._expected.items() if until > now}

    @property
    def blobs(self) -> frozenset[str]:
        """Of pushes that go on."""
        return frozenset(self._blobs)

    @property
    def images(self) -> frozenset[str]:
        """Digests of whole images."""
        return frozenset(digest for _, digest in self._expected)

    def __bool__(self) -> bool:
        return bool(self._blobs or self._expected)
