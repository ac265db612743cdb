"""Addresses of IPv4 that tests write, and the ones of IPv6 that they stand for in a lab with IPv6.

10.112.1.2   task 2 of node 1     fd00:112:0:1::2
10.113.0.1   a service            fd00:113::1
192.0.2.100  on the segment       2001:db8::64
"""

import functools
import re
from typing import TypeVar

from protos.orch.v1 import dispatcher_pb2 as dpb

M = TypeVar("M", dpb.NodeNetwork, dpb.NetworkService)

_RANGES = {
    "10.112.0.0/16": "fd00:112::/48",
    "10.113.0.0/16": "fd00:113::/112",
}
_ADDRESS = re.compile(r"(\d+)\.(\d+)\.(\d+)\.(\d+)(/\d+)?")
_LENGTHS = {"/32": "/128", "/24": "/64", "": ""}
_plain: dict[str, str] = {}


@functools.cache
def twin(text: str) -> str:
    """Of an address or a range; everything else is its own."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return text
    made = _RANGES.get(text) or _made([int(part) for part in found.groups()[:4]]) + _LENGTHS[found[5] or ""]
    _plain[made] = text
    return made


def plain(text: str) -> str:
    """What a twin stands for; everything else is its own."""
    return _plain.get(text, text)


def message(given: M, *, alone: bool) -> M:
    """A message with the addresses of IPv6 beside those of IPv4, or instead of them."""
    made = type(given)()
    made.CopyFrom(given)
    parts = [made, *made.endpoints] if isinstance(made, dpb.NetworkService) else [made]
    for part in parts:
        for name in ("address", "subnet", "cluster_range", "service_range"):
            text = getattr(part, name, "")
            if text:
                setattr(part, f"{name}6", twin(text))
                setattr(part, name, "" if alone else text)
    return made


def _made(parts: list[int]) -> str:
    match parts:
        case [10, 112, node, task]:
            return f"fd00:112:0:{node:x}::{task:x}" if task else f"fd00:112:0:{node:x}::"
        case [10, 113, high, low]:
            return f"fd00:113::{high << 8 | low:x}"
        case [192, 0, 2, last]:
            return f"2001:db8::{last:x}"
        case [0, 0, 0, 0]:
            return "::"
        case [127, 0, 0, 1]:
            return "::1"
    raise AssertionError(f"{parts} has no twin")
