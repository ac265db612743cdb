"""How amounts and names without end are put into words. It imports nothing: verbs that need no schema start sooner."""

_AGE_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def age(milliseconds: int) -> str:
    """`45s`, `2m10s`, `3h5m`, `5d`: precise while young. A clock that is a little behind shows `0s`."""
    seconds = max(milliseconds, 0) // 1000
    for index, (unit, size_s) in enumerate(_AGE_UNITS):
        count, rest = divmod(seconds, size_s)
        if not count and unit != "s":
            continue
        if unit == "s" or count >= 10:
            return f"{count}{unit}"
        smaller, smaller_s = _AGE_UNITS[index + 1]
        return f"{count}{unit}{rest // smaller_s}{smaller}" if rest // smaller_s else f"{count}{unit}"
    raise AssertionError("seconds always match")


def size(size_bytes: int) -> str:
    """`1.4Gi`: near enough to compare."""
    value = float(size_bytes)
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if value < 1024 or unit == "Ti":
            return f"{value:.0f}{unit}" if value >= 10 or not unit else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("Ti takes the rest")


def digest(text: str) -> str:
    """`sha256:…` → its first twelve figures."""
    return text.rpartition(":")[2][:12]


def count(number: int, word: str) -> str:
    """`1 task`, `3 tasks`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
