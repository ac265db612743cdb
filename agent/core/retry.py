"""How a failed step is tried again: soon, then less and less often, and in the end not at all."""

from agent.core.observed import Failure

FIRST_DELAY_MS = 100
LONGEST_DELAY_MS = 10_000
PREPARE_ATTEMPTS = 60
"""A task that could not be prepared in so many attempts (about nine minutes) is given up."""


def delay_ms(attempts: int, jitter: float) -> int:
    """100 ms after the first failure, 200 ms after the second, … 10 s; each less up to a fifth."""
    assert attempts >= 1, attempts
    return int(min(LONGEST_DELAY_MS, FIRST_DELAY_MS << min(attempts - 1, 10)) * (1 - jitter / 5))


def temporary(before: Failure | None, *, reason: str, message: str, now_ms: int, jitter: float) -> Failure:
    """The failure of a step that will be tried again. A final failure before it stays what the task ends with."""
    attempts = before.attempts + 1 if before is not None else 1
    if before is not None and before.final:
        return Failure(reason=before.reason, message=before.message, attempts=attempts, final=True)
    retry_at = now_ms + delay_ms(attempts, jitter)
    return Failure(reason=reason, message=message, attempts=attempts, retry_at=retry_at)


def final(*, reason: str, message: str) -> Failure:
    """The failure that ends the task."""
    return Failure(reason=reason, message=message, final=True)
