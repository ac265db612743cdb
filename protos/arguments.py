"""Amounts on the command lines of programs, written as manifests write them; for argparse."""

import argparse
from collections.abc import Callable
from typing import TypeVar

from protos import units

T = TypeVar("T")


def checked(read: Callable[[str], T], text: str) -> T:
    """What `read` makes of the text; its ValueError becomes a line of argparse's."""
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def size(text: str) -> int:
    """`20Gi` → bytes."""
    return checked(units.parse_bytes, text)


def seconds(text: str) -> float:
    """`168h` → seconds."""
    return checked(units.parse_duration, text) / 1000
