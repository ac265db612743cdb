"""Values: classes of named fields that nobody changes and that are equal when their fields are.

What `dataclasses.dataclass(frozen=True, slots=True, kw_only=True)` makes, without its price at the start of a command:
that module imports inspect, and compiles six functions for each class, 28 ms for this package, in a command that has 60
for everything (docs/decisions/0011). Here the functions are the same for all; a class that is made often, as in the
launcher, gets an `__init__` of its own.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

_SOON_OFTEN = 16
_UNSET = object()


class _Factory:
    """A default that is made anew for each value."""

    __slots__ = ("make",)

    def __init__(self, make: "Callable[[], Any]") -> None:
        self.make = make


def field(*, default_factory: "Callable[[], Any]") -> "Any":
    """A field's default that is made by a call."""
    return _Factory(default_factory)


def replace(value: "T", **changes: "Any") -> "T":
    """The same value but for these fields."""
    return type(value)(**{**asdict(value), **changes})


def asdict(value: "Any") -> "dict[str, Any]":
    """The fields by their names; what they hold is not copied."""
    return {name: getattr(value, name) for name in value.__slots__}


def defaults(kind: "type[Any]") -> "dict[str, Any]":
    """The fields that need not be given, with what they are then."""
    found: dict[str, Any] = kind.__defaults__
    return {name: default.make() if isinstance(default, _Factory) else default for name, default in found.items()}


def _init(self: "Any", **given: "Any") -> None:
    kind = type(self)
    kind.__made__ += 1
    if kind.__made__ == _SOON_OFTEN:
        kind.__init__ = _compiled(kind)
    for name in self.__slots__:
        value = given.pop(name, _UNSET)
        if value is _UNSET:
            if name not in kind.__defaults__:
                raise TypeError(f"{kind.__name__}: {name} is missing")
            value = kind.__defaults__[name]
            if isinstance(value, _Factory):
                value = value.make()
        object.__setattr__(self, name, value)
    if given:
        raise TypeError(f"{kind.__name__}: has no field {', '.join(given)}")


def _compiled(kind: "type[Any]") -> "Callable[..., None]":
    """The same with the names written out."""
    scope: dict[str, Any] = {"_unset": _UNSET}
    parameters, lines = [], []
    for name in kind.__slots__:
        scope[f"_set_{name}"] = kind.__dict__[name].__set__
        default = kind.__defaults__.get(name, _UNSET)
        value = name
        if isinstance(default, _Factory):
            scope[f"_make_{name}"] = default.make
            value = f"_make_{name}() if {name} is _unset else {name}"
            parameters.append(f"{name}=_unset")
        elif default is _UNSET:
            parameters.append(name)
        else:
            scope[f"_default_{name}"] = default
            parameters.append(f"{name}=_default_{name}")
        lines.append(f" _set_{name}(self, {value})")
    exec(f"def __init__(self, *, {', '.join(parameters)}):\n" + "\n".join(lines), scope)  # noqa: S102 - of names of ours
    made: Callable[..., None] = scope["__init__"]
    return made


def _eq(self: "Any", other: "Any") -> bool:
    return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)


def _hash(self: "Any") -> int:
    return hash(tuple(getattr(self, name) for name in self.__slots__))


def _repr(self: "Any") -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__name__}({fields})"


def _refuse(self: "Any", name: str, _value: object = None) -> None:
    raise AttributeError(f"{type(self).__name__}.{name}: a value is not changed; make another (values.replace)")


_COMMON = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
}

if TYPE_CHECKING:

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
    def frozen(cls: type[T]) -> type[T]:
        """Make a class one of values: what is annotated in it are its fields, which are given by their names."""

else:

    def frozen(cls):  # noqa: ANN001, ANN201 - above, for whom it is about types
        """Make a class one of values: what is annotated in it are its fields, which are given by their names."""
        content = dict(cls.__dict__)
        names = tuple(content.get("__annotations__", ()))
        found = {name: content.pop(name) for name in names if name in content}
        for slot in ("__dict__", "__weakref__"):
            content.pop(slot, None)
        content |= {**_COMMON, "__slots__": names, "__defaults__": found, "__made__": 0}
        assert cls.__bases__ == (object,), "values do not inherit"
        return type(cls.__name__, (), content)
