"""What to think of a cluster: from what its parts say of themselves, a finding each.

Two rules. A part that says nothing has a finding, too: why not, and what follows. And what one part cannot know by
itself is compared here: clocks, versions, raft's progress, certificates against the records.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.core.trust import rotation, store_rotation
from controlplane.store.condition import Member
from protos import absence, findings, units
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from protos.orch.v1 import trust_pb2
from trust.core import lifetime
from trust.core.identity import PEOPLE, Role

QUOTA_BYTES = 2 << 30
"""etcd's own limit, unless it is told another with --quota-backend-bytes."""
LAG_ENTRIES = 5_000
"""Some seconds of a busy cluster."""
CORRUPTING = ((3, 5, 0), (3, 5, 2))
OLDEST = (3, 4, 20)
CLOCK_WARNING_MS, CLOCK_FAILED_MS = 1_000, lifetime.MAX_CLOCK_DIFFERENCE_MS
SOON_MS = 9 * lifetime.DAY_MS
"""A machine renews by 72 of its certificate's 90 days; half of the rest is left."""
ROOT_SOON_MS = 365 * lifetime.DAY_MS
SHOWN = 5
STORE_ROOT = "store's root"
_NOT_BELIEVED = re.compile(r"CERTIFICATE_VERIFY_FAILED|Hostname Verification")
"""What gRPC's core says of a server's certificate."""
_NTP = "`timedatectl set-ntp true` on both machines, or install chrony"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What an instance has said. `problem`: why it said nothing. Its clock is ahead of ours by so much, give or take
    what is uncertain, which is 0 for ourselves.
    """

    name: str
    problem: str = ""
    version: str = ""
    store_problem: str = ""
    ahead_ms: int = 0
    uncertain_ms: int = 0


# etcd ---------------------------------------------------------------------------------------------------------------


def etcd(members: Sequence[Member]) -> list[api.Finding]:
    """Of every member, and of all together."""
    there = [one for one in members if not one.problem]
    alone = [finding for one in members for finding in findings.at(f"etcd {one.address}", _member(one, there))]
    return [*findings.at("etcd", _quorum(members, there)), *alone]


def _quorum(members: Sequence[Member], there: Sequence[Member]) -> Iterable[api.Finding]:
    needed, leading = len(members) // 2 + 1, [one for one in there if one.has_leader]
    said = f"{len(there)} of {len(members)} members answer"
    if len(there) < needed or not leading:
        text = f"{said}, and {needed} are needed: nothing can be changed; what runs goes on"
        yield findings.failed("quorum", text, "start the members that are down; their logs say what is wrong")
    elif len(there) < len(members):
        text = f"{said}, {needed} are needed: {len(there) - needed} more may fail"
        yield findings.warning("quorum", text, "start the members that are down")
    elif len(members) % 2 == 0:
        text = f"{said}: an even number bears no more failures than one less"
        yield findings.warning("quorum", text, "have one, three or five members")
    elif len(members) == 1:
        yield findings.ok("quorum", "the only member answers; with it everything that is not backed up would be lost")
    else:
        yield findings.ok("quorum", f"{said}; {len(members) - needed} may fail")
    alarms = sorted({alarm for one in there for alarm in one.alarms})
    if alarms:
        text = f"raised: {', '.join(alarms)}; nothing can be written"
        yield findings.failed("alarms", text, "defragment every member, then `etcdctl alarm disarm`")


def _member(one: Member, there: Sequence[Member]) -> Iterable[api.Finding]:
    if one.problem:
        yield _silent(one.problem)
        return
    behind = max(other.index for other in there) - one.index
    if one.errors:
        yield findings.failed("member", f"it complains: {'; '.join(one.errors)}", "its log says more")
    elif behind > LAG_ENTRIES:
        text = f"it is {behind} entries behind: its disk or its network is too slow"
        yield findings.warning("member", text, "give it a faster disk, or one of its own")
    else:
        yield findings.ok("member", "it leads" if one.is_leader else "it follows")
    yield _version(one.version)
    yield _size(one.size_bytes, one.used_bytes)


def _silent(problem: str) -> api.Finding:
    if _NOT_BELIEVED.search(problem):
        text = f"its certificate is not for the address by which it is asked, or of another store: {problem}"
        remedy = "ask by an address that `orchctl cluster init --host` or `cluster join` was told, or make them anew"
        return findings.failed("certificate", text, remedy)
    return findings.failed("member", f"it does not answer: {problem}", "see whether it runs, and the way to it")


def _version(text: str) -> api.Finding:
    numbers = tuple(int(part) for part in text.split("-", maxsplit=1)[0].split(".") if part.isdigit())
    if CORRUPTING[0] <= numbers <= CORRUPTING[1]:
        return findings.failed("version", f"etcd {text} is known to lose data", "upgrade it to 3.5.3 or later")
    if numbers < OLDEST:
        return findings.warning("version", f"etcd {text} is older than what is tested", "upgrade it to 3.4.20 or later")
    return findings.ok("version", f"etcd {text}")


def _size(size_bytes: int, used_bytes: int) -> api.Finding:
    """Of 2 GiB by default, 1.2 are a warning, and 1.9 a failure: at the limit nothing can be written."""
    said = f"its database has {units.about_bytes(size_bytes)}, of which {units.about_bytes(used_bytes)} are in use"
    remedy = "`etcdctl defrag` on one member after the other, or raise --quota-backend-bytes"
    if size_bytes > QUOTA_BYTES * 19 // 20:
        return findings.failed("database", f"{said}: at {units.about_bytes(QUOTA_BYTES)} writes end", remedy)
    if size_bytes > QUOTA_BYTES * 6 // 10:
        return findings.warning("database", f"{said}, and {units.about_bytes(QUOTA_BYTES)} is the usual limit", remedy)
    return findings.ok("database", said)


# Instances and nodes ------------------------------------------------------------------------------------------------


def instance(one: Instance, own_version: str) -> list[api.Finding]:
    """Of an instance of the control plane, by one that runs `own_version`."""
    if one.problem:
        text = f"it does not answer: {one.problem}"
        return findings.at(one.name, [findings.failed("instance", text, "see whether it runs, and its log")])
    if one.store_problem:
        state = findings.failed("instance", one.store_problem, "see whether it reaches etcd, and its log")
    else:
        state = findings.ok("instance", "it answers, and knows the store")
    clocks = [clock("the leader's", one.ahead_ms, one.uncertain_ms)] if one.uncertain_ms else []
    return findings.at(one.name, [state, version(one.version, own_version), *clocks])


def version(theirs: str, ours: str) -> api.Finding:
    """A part's, by the leader's."""
    if theirs == ours:
        return findings.ok("version", f"Orch {theirs}")
    text = f"Orch {theirs or 'of no version'} beside the leader's {ours}: two versions together are for an upgrade only"
    return findings.warning("version", text, "finish the upgrade")


def clock(whose: str, ahead_ms: int, uncertain_ms: int) -> api.Finding:
    """A part's clock against another. What the way there and back took is uncertain."""
    size_ms, way = abs(ahead_ms), "ahead of" if ahead_ms > 0 else "behind"
    said = f"{size_ms / 1000:.1f} s {way} {whose}"
    if size_ms - uncertain_ms > CLOCK_FAILED_MS:
        return findings.failed("clock", f"{said}: certificates are not believed, and nobody joins", _NTP)
    if size_ms - uncertain_ms > CLOCK_WARNING_MS:
        return findings.warning("clock", f"{said}: logs and events are out of order", _NTP)
    return findings.ok("clock", f"within {max(size_ms, uncertain_ms, 1)} ms of {whose}")


def node(one: pb.Node, own_version: str) -> list[api.Finding]:
    """What is known of a node without asking it."""
    name = one.meta.name
    if absence.is_expected(one):
        text = "its agent has gone in order, and is expected back"
        return findings.at(name, [findings.warning("node", text, "wait until it is back")])
    if one.status.state != pb.NODE_STATE_READY:
        remedy = f"see whether the machine and its agent run, and the agent's log; else `orchctl delete node/{name}`"
        down = one.status.state == pb.NODE_STATE_DOWN
        text = "it is out of reach, and its tasks are replaced elsewhere" if down else "its agent has no session"
        if one.status.held:
            text = "it is out of reach with more than half of the nodes, and none of its tasks is replaced"
            remedy = f"see whether the network or the machines failed; `orchctl node lost {name}` if it does not return"
        return findings.at(name, [findings.failed("node", text, remedy)])
    said = one.status.description
    return findings.at(
        name, [findings.ok("node", "its agent holds a session"), version(said.agent_version, own_version)]
    )


# The network --------------------------------------------------------------------------------------------------------


def network(found: Iterable[api.NetworkFinding]) -> list[api.Finding]:
    """What nodes have tried among each other: a line for each node where all is well, and one for each broken way.

    What is said of a node's own agent, `node` and the node's machine have said already.
    """
    well: Counter[str] = Counter()
    broken: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in found:
        if one.problem and one.source == one.target:
            continue
        if one.problem:
            broken[one.source, one.what, one.problem].append(one.target)
        else:
            well[one.source] += not one.unknown
    lines = [finding for (source, what, why), to in broken.items() for finding in _broken(source, what, why, to)]
    bad = {source for source, _, _ in broken}
    good = [
        finding
        for source, count in sorted(well.items())
        if source not in bad
        for finding in findings.at(source, [findings.ok("network", f"{count} ways to nodes, names and services work")])
    ]
    return [*lines, *good]


def _broken(source: str, what: str, why: str, targets: Sequence[str]) -> list[api.Finding]:
    more = f" and {len(targets) - SHOWN} more" if len(targets) > SHOWN else ""
    text = f"to {', '.join(targets[:SHOWN])}{more}: {what}: {why}"
    sized = "packets of" in what
    mtu = "let UDP port 4789 pass between nodes, and give all links the same MTU, or --network-mtu a smaller one"
    remedy = mtu if sized else "`orchctl network check` tries it again; see docs/network.md"
    return findings.at(source, [findings.failed("network", text, remedy)])


# Certificates -------------------------------------------------------------------------------------------------------


def certificates(
    members: Collection[trust_pb2.MemberRecord], root_expires_ms: Mapping[str, int], now_ms: int
) -> list[api.Finding]:
    """Of all members, by their records, and of the roots."""
    machines = [one for one in members if one.keys and Role(one.role) not in PEOPLE]
    expired = [one for one in machines if _until(one) <= now_ms]
    soon = [one for one in machines if now_ms < _until(one) <= now_ms + SOON_MS]
    lines: list[api.Finding] = []
    if expired:
        text = f"expired: {_names(expired)}; nobody lets them in"
        lines.append(findings.failed("certificates", text, "`orchctl node join` or `orchctl cluster join` there, anew"))
    if soon:
        text = f"not renewed, and about to expire: {_names(soon)}"
        lines.append(findings.warning("certificates", text, "see why in the logs there; they have to run to renew"))
    if not lines:
        lines.append(findings.ok("certificates", f"those of {len(machines)} machines are renewed in time"))
    return [*lines, *(_root(name, until_ms, now_ms) for name, until_ms in root_expires_ms.items())]


def store_root(until_ms: int, now_ms: int) -> api.Finding:
    """Of the root that etcd and instances know each other by."""
    return _root("of the store", until_ms, now_ms, check=STORE_ROOT)


def exchange(
    trust: trust_pb2.TrustRecord, members: Collection[trust_pb2.MemberRecord], now_ms: int
) -> list[api.Finding]:
    """Of the cluster's root and the store's, while one is under way: whom it waits for."""
    found = []
    for check, phase, step in (
        ("root", trust.rotation, rotation.advance(trust, members, now_ms)),
        (STORE_ROOT, trust.store_rotation, store_rotation.advance(trust, members)),
    ):
        if phase:
            named = step.waiting_for
            more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
            text = f"it is being exchanged, and waits for {', '.join(named[:SHOWN]) or 'nobody'}{more}"
            found.append(findings.warning(check, text, "`orchctl cluster rotate-ca --status` waits for the end"))
    return found


def _until(member: trust_pb2.MemberRecord) -> int:
    return max(key.expires_at for key in member.keys)


def _names(members: Sequence[trust_pb2.MemberRecord]) -> str:
    named = [f"{one.role} {one.node_name or one.name.partition(':')[2]}" for one in members]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return ", ".join(named[:SHOWN]) + more


def _root(name: str, until_ms: int, now_ms: int, check: str = "root") -> api.Finding:
    days = (until_ms - now_ms) // lifetime.DAY_MS
    if until_ms - now_ms <= ROOT_SOON_MS:
        return findings.warning(check, f"the root {name} is good for {days} days more", "`orchctl cluster rotate-ca`")
    return findings.ok(check, f"the root {name} is good for {days} days")
