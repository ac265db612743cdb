"""What to think of the machine of a control plane: from what was read of it, a finding each.

The rule: a finding says what it means for the cluster, and a remedy is something that the reader can type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protos import findings, units
from protos.orch.v1 import control_pb2 as api
from trust.core import lifetime

LEAST_FREE_BYTES = 1 << 30
LOW_PERCENT, LEAST_PERCENT = 10, 2
LATE = 0.85
"""A certificate is renewed by 0.8 of its life; from here on somebody should ask why it was not."""
OTHERS_SOON_MS = 30 * lifetime.DAY_MS
"""What is left to whoever renews by hand what an etcd of theirs knows control planes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCertificate:
    """One of those between an instance and the store. `whose`: the instance's, or the member's beside it.

    Moments in milliseconds since 1970. `renewed`: by the instance itself; else by whoever runs the store.
    """

    whose: str
    not_before_ms: int
    not_after_ms: int
    renewed: bool


def disk(folder: str, total_bytes: int, free_bytes: int) -> api.Finding:
    """Of the disk that images and the audit log are on, and in an installation the store too."""
    percent = 100 * free_bytes // max(1, total_bytes)
    said = f"{percent}% are free of {units.about_bytes(total_bytes)} at {folder}"
    remedy = f"free some, or put the folder on a larger disk; `du -xh {folder} | sort -h | tail`"
    if percent < LEAST_PERCENT or free_bytes < LEAST_FREE_BYTES:
        text = f"{said}: images are refused, and a member of etcd on it stops when it is full"
        return findings.failed("disk", text, remedy)
    if percent < LOW_PERCENT:
        text = f"{said}: when it is full, images are refused, and a member of etcd on it stops"
        return findings.warning("disk", text, remedy)
    return findings.ok("disk", said)


def timekeeping(kept: bool) -> api.Finding:
    """`kept`: whether something keeps the machine's clock right."""
    if kept:
        return findings.ok("timekeeping", "something keeps the clock right")
    text = "nothing keeps the clock right: from five minutes off, certificates are not believed, and nobody joins"
    return findings.warning("timekeeping", text, "`timedatectl set-ntp true`, or install chrony")


def ways(found: Mapping[str, str]) -> list[api.Finding]:
    """Why each address of the other control planes and of the store's members is not reached; empty: it is."""
    broken = [(address.rpartition(":"), why) for address, why in sorted(found.items()) if why]
    remedy = "see whether it runs there, and let TCP ports 7400, 2379 and 2380 pass between control planes"
    if broken:
        return [
            findings.failed(f"port {port}/tcp", f"nothing is reached at {host}:{port} from here: {why}", remedy)
            for (host, _, port), why in broken
        ]
    if not found:
        return []
    return [findings.ok("ports", f"{len(found)} addresses of control planes and of the store are reached")]


def store_certificates(found: Sequence[StoreCertificate], now_ms: int) -> list[api.Finding]:
    """Of each, how long it is good, and whether it should have been renewed."""
    return [_store_certificate(one, now_ms) for one in found]


def _store_certificate(one: StoreCertificate, now_ms: int) -> api.Finding:
    """Example: of a year that is renewed by itself, a warning from day 310 on; of one that is not, from day 335."""
    left_ms = one.not_after_ms - now_ms
    said = f"that of {one.whose} for the store"
    by_hand = "put a new one into `store.pem` of each trust folder, key first, and restart the control planes in turn"
    remedy = (
        "see why in the log; the control plane has to run and reach the store to renew it" if one.renewed else by_hand
    )
    if left_ms <= 0:
        gone = f"`orchctl cluster member revoke` it on another control plane, and join it anew; {remedy}"
        text = f"{said} has expired: the store does not let it in"
        return findings.failed("store certificate", text, gone if one.renewed else by_hand)
    days = left_ms // lifetime.DAY_MS
    late = one.not_before_ms + LATE * (one.not_after_ms - one.not_before_ms)
    if one.renewed and now_ms > late:
        return findings.warning(
            "store certificate", f"{said} expires in {days} days, and should have been renewed", remedy
        )
    if not one.renewed and left_ms < OTHERS_SOON_MS:
        return findings.warning("store certificate", f"{said} expires in {days} days, and is renewed by hand", remedy)
    return findings.ok("store certificate", f"{said} is good for {days} days")
