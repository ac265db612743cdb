"""Values do what frozen dataclasses with slots and named fields do."""

import pytest

from runtime import values
from runtime.values import field, frozen


@frozen
class Point:
    """Two fields must be given; the others are made when they are not."""

    x: int
    y: int
    name: str = "p"
    tags: list[str] = field(default_factory=list)

    @property
    def sum(self) -> int:
        return self.x + self.y


@frozen
class Other:
    """The same fields, but another kind."""

    x: int
    y: int
    name: str = "p"
    tags: list[str] = field(default_factory=list)


def test_fields_are_given_by_their_names() -> None:
    """With what they are by default; a list is a new one each time. The first value is made as the hundredth is."""
    for _ in range(100):
        point = Point(y=2, x=1)
        assert (point.x, point.y, point.name, point.tags, point.sum) == (1, 2, "p", [], 3)
        assert point.tags is not Point(x=1, y=2).tags
        assert Point(x=1, y=2, name="q", tags=["t"]).tags == ["t"]


@pytest.mark.parametrize("many", [0, 50])
def test_wrong_fields_are_refused(many: int) -> None:
    """One that is missing, unknown, or given by its place; whether the class is used seldom or often."""

    @frozen
    class Fresh:
        x: int
        y: int = 5

    for _ in range(many):
        Fresh(x=1)
    with pytest.raises(TypeError):
        Fresh()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Fresh(x=1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Fresh(1)  # type: ignore[misc]
    assert Fresh(x=1).y == 5


def test_nothing_is_changed() -> None:
    """Neither a field nor anything beside."""
    point = Point(x=1, y=2)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match=f"Point.{name}"):
            setattr(point, name, 3)
        with pytest.raises(AttributeError):
            delattr(point, name)
    assert not hasattr(point, "__dict__")


def test_equal_when_the_fields_are() -> None:
    """And of one kind; then they hash the same."""
    assert Point(x=1, y=2) == Point(x=1, y=2)
    assert Point(x=1, y=2) != Point(x=1, y=3)
    assert Point(x=1, y=2) != Other(x=1, y=2)
    assert Point(x=1, y=2) != (1, 2, "p", [])
    assert hash(Point(x=1, y=2, tags=())) == hash(Point(x=1, y=2, tags=()))  # type: ignore[arg-type]


def test_replace_and_describe() -> None:
    """A changed copy, the fields by name, and text for people."""
    point = Point(x=1, y=2)
    assert values.replace(point, y=5) == Point(x=1, y=5)
    assert point.y == 2
    with pytest.raises(TypeError):
        values.replace(point, z=1)
    assert values.asdict(point) == {"x": 1, "y": 2, "name": "p", "tags": []}
    assert repr(point) == "Point(x=1, y=2, name='p', tags=[])"
    assert values.defaults(Point) == {"name": "p", "tags": []}
