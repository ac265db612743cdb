"""What is wrong with an object, wherever it came from: a field and a sentence, without a place in a text."""

from dataclasses import dataclass

from manifests import paths
from manifests.paths import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`at_key`: it is the key of the map that is wrong and not what it stands for. `of_nothing`: that nothing is said
    at the place, which is no mistake of its own where what is said there could not be read.
    """

    keys: Path
    message: str
    hint: str = ""
    at_key: bool = False
    of_nothing: bool = False

    @property
    def path(self) -> str:
        """`spec.template.container.image`."""
        return paths.show(self.keys)

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.keys else self.message
        return f"{text}; {self.hint}" if self.hint else text
