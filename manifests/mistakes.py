"""What is wrong with a manifest, and where.

    InvalidManifest          every mistake of one `read`, in the order of the sources
      └ Mistake              one line: `hello.yaml:7:9: spec.template.container.imagee: unknown field; did you …`

The reader collects mistakes rather than stopping at the first, so that a person corrects a file in one go.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_MISTAKES = 200
"""More help nobody; a file that is not a manifest at all could have one a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A character of a source. Lines and columns count from 1, as editors do."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """`path` is the field inside the object, empty when the mistake is not about a field; `hint` is the remedy."""

    place: Place
    path: str = ""
    message: str
    hint: str = ""

    @property
    def file(self) -> str:
        return self.place.source

    @property
    def line(self) -> int:
        return self.place.line

    @property
    def column(self) -> int:
        return self.place.column

    def __str__(self) -> str:
        where = f"{self.place}: {self.path}: " if self.path else f"{self.place}: "
        return where + (f"{self.message}; {self.hint}" if self.hint else self.message)


class InvalidManifest(ValueError):  # noqa: N818 - what it is, in the words of the field
    """Nothing was read, because of these mistakes (at least one)."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        assert mistakes, "an invalid manifest has a mistake"
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


class Collector:
    """Takes mistakes as they are found. The same mistake at the same place (an alias used twice) counts once."""

    def __init__(self) -> None:
        self._mistakes: dict[tuple[Place, str], Mistake] = {}
        self._left_out = 0

    @property
    def is_full(self) -> bool:
        """Further mistakes are counted only."""
        return len(self._mistakes) >= MAX_MISTAKES

    def add(self, mistake: Mistake) -> None:
        key = (mistake.place, mistake.message)
        if key in self._mistakes:
            return
        if self.is_full:
            self._left_out += 1
        else:
            self._mistakes[key] = mistake

    def raise_if_any(self, sources: Sequence[str]) -> None:
        """Raises InvalidManifest with everything that was added, ordered by source, line and column."""
        if not self._mistakes:
            return
        order = {name: number for number, name in enumerate(sources)}
        found = sorted(self._mistakes.values(), key=lambda mistake: (order[mistake.file], mistake.line, mistake.column))
        if self._left_out:
            found.append(Mistake(place=found[-1].place, message=f"{self._left_out} more mistakes are not shown"))
        raise InvalidManifest(found)
