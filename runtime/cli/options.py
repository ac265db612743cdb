"""Read flags as runc's and crun's callers write them: `--name value`, `--name=value`, `-n value`, in any order.

Two rules: a flag that is not in the table is refused, and `--` ends the flags. Not argparse, whose import alone takes
longer than `orchrun state`.
"""

from typing import Final

from runtime import errors


class Flag:
    """One flag. Without a `value` (what the help calls it) it is on or off."""

    __slots__ = ("help", "many", "names", "value")

    def __init__(self, *names: str, value: str = "", many: bool = False, help: str) -> None:  # noqa: A002
        self.names = names
        self.value = value
        self.many = many
        self.help = help

    @property
    def key(self) -> str:
        """The name that the options are asked by."""
        return self.names[0]


class Options:
    """What was given: flags by their first name, and the words between them."""

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self._known = {flag.key: flag for flag in flags}
        self._given: dict[str, list[str]] = {}
        self.words: list[str] = []

    def add(self, flag: Flag, value: str) -> None:
        """Note one flag; the last one counts, unless many are meant."""
        self._given[flag.key] = [*self._given.get(flag.key, ()), value] if flag.many else [value]

    def on(self, name: str) -> bool:
        """Whether a flag is on."""
        assert not self._known[name].value, name
        return self._given.get(name, [_OFF])[-1] != _OFF

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag."""
        assert self._known[name].value, name
        return self._given.get(name, [default])[-1]

    def texts(self, name: str) -> list[str]:
        """The values of a flag that may be given many times."""
        assert self._known[name].many, name
        return self._given.get(name, [])

    def number(self, name: str, default: int | None = None) -> int | None:
        """The value of a flag as an integer."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise errors.InvalidSpec(f"{name}: {text!r} is no integer") from None

    def take(self, *names: str) -> list[str]:
        """The words, which must be as many as these names; a name in brackets may be missing."""
        needed = sum(not name.startswith("[") for name in names)
        if not needed <= len(self.words) <= len(names):
            found = " ".join(self.words) or "nothing"
            raise errors.InvalidSpec(f"arguments: expected {' '.join(names)}, not {found}")
        return [*self.words, *[""] * (len(names) - len(self.words))]


_OFF: Final = "false"
_ON: Final = "true"


def parse(flags: tuple[Flag, ...], arguments: list[str], *, words_end_flags: bool = False) -> Options:
    """Read the arguments. With `words_end_flags` the first word ends them: what follows belongs to another program."""
    options = Options(flags)
    by_name = {name: flag for flag in flags for name in flag.names}
    ahead = arguments[::-1]
    while ahead:
        argument = ahead.pop()
        if argument == "--" and not (words_end_flags and options.words):
            options.words += ahead[::-1]
            break
        if argument == "-" or not argument.startswith("-"):
            options.words.append(argument)
            if words_end_flags:
                options.words += ahead[::-1]
                break
            continue
        name, equals, value = argument.partition("=")
        flag = by_name.get(name)
        if flag is None:
            raise errors.InvalidSpec(f"{name}: no such flag; --help lists them")
        if not flag.value:
            options.add(flag, value if equals else _ON)
            continue
        if not equals:
            if not ahead:
                raise errors.InvalidSpec(f"{name}: needs {flag.value} after it")
            value = ahead.pop()
        options.add(flag, value)
    return options


def describe(flags: tuple[Flag, ...]) -> str:
    """The table of flags for --help."""
    rows = [(", ".join(flag.names) + (f" {flag.value}" if flag.value else ""), flag.help) for flag in flags]
    width = max((len(left) for left, _ in rows), default=0)
    return "".join(f"  {left:<{width}}  {right}\n" for left, right in rows)
