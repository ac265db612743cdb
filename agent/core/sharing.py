"""Whom a node fetches a layer from, and when it gives somebody up. All bytes are looked at in the end: see
`images.blobs`.
"""

from dataclasses import dataclass

SMALL_BYTES = 1024 * 1024
"""A smaller blob comes from the control plane: asking around would take longer."""
PATIENCE_S = 5.0
"""A node that gives is judged after this long."""
SLOWEST_BYTES_PER_S = 256 * 1024

TRANSFERS = 3
"""As many nodes as the leader sends to one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a node gives to others at most."""

    transfers: int = TRANSFERS
    bytes_per_s: int = 0
    """All transfers together. 0: as much as goes through."""


def is_shared(size_bytes: int | None) -> bool:
    """Whether other nodes are asked for a blob of this size. The size of a manifest is not known before it is here."""
    return size_bytes is not None and size_bytes >= SMALL_BYTES


def is_too_slow(received_bytes: int, elapsed_s: float) -> bool:
    """Whether another node would do better: 200 MiB at 255 KiB/s take 14 minutes."""
    return elapsed_s > PATIENCE_S and received_bytes < SLOWEST_BYTES_PER_S * elapsed_s


def least_rate(transfers: int) -> int:
    """Bytes a second that all transfers of a node need together so that no other node gives it up.

    Twice the slowest, since what is sent comes in chunks: 3 transfers need 1.5 MiB/s.
    """
    return 2 * SLOWEST_BYTES_PER_S * transfers
