"""What another `ttl` means for a service that is there already: it counts from when the service was made.

The rule: nobody deletes a service by a `ttl` on purpose. One that is over already is refused, and of every other it is
told when the end will be.
"""

from collections.abc import Iterator

from protos import kinds, units
from protos.orch.v1 import objects_pb2 as pb


def ends_at_once(before: pb.Service, after: pb.Service, now_ms: int) -> bool:
    """Whether it has another `ttl` now, and one that is over."""
    return after.spec.ttl not in {0, before.spec.ttl} and before.meta.created_at + after.spec.ttl <= now_ms


def age(service: pb.Service, now_ms: int) -> str:
    """In words, to the second."""
    return _words(now_ms - service.meta.created_at)


def told(before: kinds.StoredObject | None, after: kinds.StoredObject, now_ms: int) -> Iterator[str]:
    """When the service will be deleted, if that has changed."""
    if isinstance(before, pb.Service) and isinstance(after, pb.Service) and after.spec.ttl not in {0, before.spec.ttl}:
        left_ms = after.meta.created_at + after.spec.ttl - now_ms
        yield (
            f"spec.ttl: it counts from when the service was made, {age(after, now_ms)} ago, so that it is deleted in "
            f"{_words(left_ms)}; write more, or remove it, to keep the service longer"
        )


def _words(span_ms: int) -> str:
    return units.format_duration(max(span_ms, 0) // 1000 * 1000)
