"""What is to be thought of a control plane's machine."""

import pytest

from controlplane.core import machine
from controlplane.core.machine import StoreCertificate
from protos import findings
from trust.core import lifetime

GIB, DAY = 1 << 30, lifetime.DAY_MS
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("total", "free", "verdict"),
    [
        (100 * GIB, 50 * GIB, "ok"),
        (100 * GIB, 9 * GIB, "warning"),
        (100 * GIB, GIB, "failed"),
        (5 * GIB, GIB - 1, "failed"),
        (0, 0, "failed"),
    ],
)
def test_a_disk_is_told_before_it_is_full(total: int, free: int, verdict: str) -> None:
    found = machine.disk("/var/lib/orch", total, free)
    assert findings.word(found) == verdict
    assert verdict == "ok" or "/var/lib/orch" in found.remedy


def test_a_clock_that_nothing_keeps_is_told_before_it_is_wrong() -> None:
    assert findings.word(machine.timekeeping(kept=True)) == "ok"
    assert findings.word(machine.timekeeping(kept=False)) == "warning"


def test_each_way_that_is_closed_is_named_and_the_others_are_counted() -> None:
    well = {"10.0.0.2:2379": "", "[fd00::3]:2380": ""}
    assert [(one.check, findings.word(one)) for one in machine.ways(well)] == [("ports", "ok")]
    assert machine.ways({}) == [], "the only control plane has nobody to reach"
    (broken,) = machine.ways(well | {"[fd00::3]:2380": "no answer within 2 s"})
    assert (broken.check, findings.word(broken)) == ("port 2380/tcp", "failed")
    assert "at [fd00::3]:2380 from here: no answer within 2 s" in broken.message


@pytest.mark.parametrize(
    ("renewed", "day", "verdict", "remedy"),
    [
        (True, 100, "ok", ""),
        (True, 292, "ok", ""),  # renewed by then
        (True, 311, "warning", "see why in the log"),
        (True, 365, "failed", "member revoke"),
        (False, 311, "ok", ""),
        (False, 336, "warning", "store.pem"),
        (False, 365, "failed", "store.pem"),
    ],
)
def test_a_certificate_for_the_store_is_told_before_it_expires(
    *, renewed: bool, day: int, verdict: str, remedy: str
) -> None:
    """Of an etcd of somebody else's, whose certificates nobody renews here, as well."""
    one = StoreCertificate(whose="the instance", not_before_ms=0, not_after_ms=YEAR, renewed=renewed)
    (found,) = machine.store_certificates([one], day * DAY)
    assert (found.check, findings.word(found)) == ("store certificate", verdict)
    assert remedy in found.remedy
