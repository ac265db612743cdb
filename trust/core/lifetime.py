"""How long certificates live, and when they are renewed.

The rule: a moment is drawn once for a certificate, so that all nodes of a cluster, which joined together, do not come
together to renew.
"""

DAY_MS = 86_400_000
LEAF_MS = 90 * DAY_MS
ROOT_MS = 3650 * DAY_MS
STORE_MS = 365 * DAY_MS
"""Of the certificates between instances and the store, and between its members. They are renewed while instances run; a
cluster that was switched off as a whole has to find them valid, for months at least."""
BACKDATED_MS = 300_000
"""A certificate is valid from a little before it is made: clocks differ."""
MAX_CLOCK_DIFFERENCE_MS = BACKDATED_MS
EARLIEST, LATEST = 0.5, 0.8
RETRY_MS = 60_000


def renewal_moment(not_before_ms: int, not_after_ms: int, chance: float) -> int:
    """When to renew. `chance` is from 0 to 1.

    Example: valid from day 0 to day 90, chance 0.5 → day 58.5 (0.65 of its life).
    """
    assert 0 <= chance <= 1, "chance is a part of the whole"
    share = EARLIEST + (LATEST - EARLIEST) * chance
    return not_before_ms + int((not_after_ms - not_before_ms) * share)


def clock_problem(own_ms: int, other_ms: int) -> str:
    """What is wrong with this machine's clock, by that of the control plane; empty when nothing is."""
    difference_ms = own_ms - other_ms
    if abs(difference_ms) <= MAX_CLOCK_DIFFERENCE_MS:
        return ""
    way = "ahead of" if difference_ms > 0 else "behind"
    return (
        f"the clock of this machine is {_duration(abs(difference_ms))} {way} the control plane's; set it "
        "(`timedatectl set-ntp true`) and try again"
    )


def _duration(length_ms: int) -> str:
    """`2 days`, `3 h 20 min`, `7 min`."""
    minutes = length_ms // 60_000
    if minutes >= 2 * 1440:
        return f"{minutes // 1440} days"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"
