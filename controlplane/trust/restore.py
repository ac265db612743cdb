"""Makes a control plane of a backup: `python -m controlplane.trust.restore`, behind `orchctl cluster restore`.

It fills the folder of an instance on this machine, with certificates of the cluster's own roots, and leaves what the
store is to hold in a file there, which the instance writes when it starts (`restoring.py`). Nothing runs meanwhile, and
a try that ends in the middle leaves a folder to be removed.

The rule: members keep their certificates, so that agents and people come back as they are. The instances are another
matter: their store is gone, and they join anew.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from controlplane.core import plan as plans
from controlplane.core.trust import admission, rotation, store_rotation
from controlplane.trust import backup, founding, restoring
from controlplane.trust.membership import SEALING_KEY
from controlplane.trust.registry import CLUSTER, INSTANCES, MEMBERS, member_key
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.folder import NotTrusted


def restore(plan: founding.Plan, made: backup.Backup, now_ms: int) -> None:
    """Fills the folders of the plan's one instance and admin. Raises NotTrusted, NotMade."""
    founding.check_empty(plan, "a cluster is restored where there is none; remove it, or move it away")
    trust = store_rotation.ended(pb.TrustRecord.FromString(made.entries[CLUSTER]))
    root = _root(trust, trust.roots[0])
    if plan.outside is not None:
        trust.ClearField("store_root")
    elif not trust.HasField("store_root"):
        fresh = errands.root(trust.cluster, "store", made.sealing_key, now_ms)
        trust.store_root.CopyFrom(pb.RootRecord(certificate=fresh.certificate, sealed_key=fresh.sealed_key))
    issuer = founding.Issuer(
        cluster=trust.cluster,
        now_ms=now_ms,
        root=root,
        store_root=_root(trust, trust.store_root) if plan.outside is None else root,
        believed=rotation.bundle(trust),
        across=trust.roots[0].cross_certificate,
    )
    (instance,) = plan.instances
    instance.folder.write(SEALING_KEY, made.sealing_key)
    members = founding.certify(plan, issuer, made.sealing_key)
    entries = {key: value for key, value in made.entries.items() if not key.startswith(MEMBERS + INSTANCES)}
    entries[CLUSTER] = trust.SerializeToString(deterministic=True)
    for one in members:
        entries[member_key(one.name)] = _with_older_keys(one, entries).SerializeToString(deterministic=True)
    # Last: an instance that finds it has everything else.
    restoring.leave(instance.folder, entries)


def _root(trust: pb.TrustRecord, record: pb.RootRecord) -> errands.Root:
    return errands.Root(certificate=record.certificate, sealed_key=record.sealed_key, about=trust.cluster)


def _with_older_keys(member: pb.MemberRecord, entries: dict[str, bytes]) -> pb.MemberRecord:
    """An admin who is known already keeps the certificates that they have elsewhere."""
    known = entries.get(member_key(member.name))
    if known is None:
        return member
    older = plans.copy(pb.MemberRecord.FromString(known))
    older.role = member.role
    del older.namespaces[:]
    return admission.with_key(older, member.keys[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with a line that says why nothing was restored."""
    parser = argparse.ArgumentParser(prog="orch-restore", description="Makes a control plane of a backup.")
    parser.add_argument("path", type=Path, help="the backup")
    founding.add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        made = backup.read(options.path)
        restore(founding.plan_of(options), made, time.time_ns() // 1_000_000)
    except backup.BadBackup as error:
        sys.stderr.write(f"orch-restore: {options.path} was not restored: {error}\n")
        return 1
    except (NotTrusted, errands.NotMade) as error:
        sys.stderr.write(f"orch-restore: nothing was restored: {error}\n")
        return 1
    said = {"cluster": made.cluster, "revision": made.revision, "made_at": made.made_at}
    print(json.dumps(said))  # noqa: T201 - it is the answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
