"""Amounts that people write as a number or as a part of all tasks: how many may be too many, or missing."""


def of(text: str, whole: int, *, up: bool) -> int:
    """`2` → 2; `25%` of 10 → 2 rounded down, 3 rounded up; nothing → 0."""
    if not text.endswith("%"):
        return int(text or 0)
    hundredfold = int(text[:-1]) * whole
    return -(-hundredfold // 100) if up else hundredfold // 100
