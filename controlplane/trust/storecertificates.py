"""Until when the store believes this instance, and others the member of the store beside it. For doctor and metrics.

The rule: what cannot be read is left out; whoever dials with it says what is wrong.
"""

from collections.abc import Iterator

from controlplane.core.machine import StoreCertificate
from controlplane.trust import storeplace
from controlplane.trust.membership import STORE_IDENTITY
from trust.core import certificate
from trust.core.identity import Malformed
from trust.folder import Folder, NotTrusted

INSTANCE, MEMBER = "the instance", "the member of etcd"


def of(folder: Folder, *, renewed: bool) -> list[StoreCertificate]:
    """Those in an instance's folder. `renewed`: by the instance; else by whoever runs the store."""
    return list(_found(folder, renewed))


def _found(folder: Folder, renewed: bool) -> Iterator[StoreCertificate]:
    beside = storeplace.member_folder(folder)
    for whose, where, name in ((INSTANCE, folder, STORE_IDENTITY), (MEMBER, beside, storeplace.CERTIFICATE)):
        if not (where.path / name).exists():
            continue
        try:
            facts = certificate.read(where.read(name))
        except (Malformed, NotTrusted):
            continue
        yield StoreCertificate(
            whose=whose, not_before_ms=facts.not_before_ms, not_after_ms=facts.not_after_ms, renewed=renewed
        )
