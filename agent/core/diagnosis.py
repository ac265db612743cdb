"""What to think of a machine: from what was read of it, a finding each. Reading is done in `adapters/machine.py`.

Two rules. A finding says what it means for containers here, not only what the number is. And a remedy is something that
the reader can type or buy.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from protos import findings, units
from protos.orch.v1 import control_pb2 as pb
from trust.core.certificate import Facts

IDMAPPED_OVERLAYS = (5, 19)
LEAST_FREE_BYTES = 1 << 30
LOW_PERCENT, LEAST_PERCENT = 10, 2
LEAST_MEMORY_BYTES = 256 << 20
SMALLEST_MTU = 1330
"""What leaves IPv6's 1280 bytes (RFC 8200, 5) inside a tunnel of 50."""
NEEDED = ("cpu", "memory", "pids")
WANTED = ("cpuset", "io")
_OF_VERSION_1 = {"io": "blkio"}
_MODES = {"v2": "version 2", "v1": "version 1", "hybrid": "version 1 beside an empty version 2"}
LATE = 0.85
"""A certificate is renewed by 0.8 of its life; from here on somebody should ask why it was not."""
CLOCK_WARNING_MS, CLOCK_FAILED_MS = 1_000, 300_000
"""A machine joins, and a certificate is believed, within five minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One that the agent listens at. `holder`: who has it; empty: nobody. `ours`: that is the agent."""

    number: int
    protocol: str
    purpose: str
    option: str
    holder: str = ""
    ours: bool = False


def root(user_id: int) -> pb.Finding:
    if user_id == 0:
        return findings.ok("user", "this is root, as the agent has to be")
    return findings.failed("user", f"this is user {user_id}; only root makes containers", "run it as root")


def kernel(release: str, version: tuple[int, int]) -> pb.Finding:
    if version >= IDMAPPED_OVERLAYS:
        return findings.ok("kernel", f"Linux {release}")
    return findings.warning(
        "kernel",
        f"Linux {release} has no overlays on idmapped layers, so that containers get this machine's users",
        "run Linux 5.19 or later",
    )


def users(problem: str) -> pb.Finding:
    """`problem`: why a container's root, tried for real, could not be made with users of its own."""
    if not problem:
        return findings.ok("users", "an overlay on idmapped layers in a user namespace was mounted on this very disk")
    return findings.warning(
        "users",
        f"containers get this machine's users, and those that insist on their own are refused: {problem}",
        "mend what it says, or put the state folder on ext4, xfs or btrfs; see docs/security.md",
    )


def overlay(problem: str) -> pb.Finding:
    if not problem:
        return findings.ok("overlayfs", "an overlay was mounted on this very disk")
    return findings.failed(
        "overlayfs",
        f"no container gets a root file system here: {problem}",
        "`modprobe overlay`, and put the state folder on ext4, xfs or btrfs",
    )


def seccomp(library: str, actions: str) -> pb.Finding:
    """`library`: libseccomp's version, empty when there is none; `actions`: what the kernel's filters can do."""
    if not library:
        return findings.failed(
            "seccomp", "libseccomp is missing, so that no container starts", "`apt install libseccomp2`"
        )
    if "errno" not in actions.split():
        text = "the kernel filters no system calls, so that no container starts with its filter"
        return findings.failed("seccomp", text, "run a kernel with CONFIG_SECCOMP_FILTER, as distributions' are")
    return findings.ok("seccomp", f"libseccomp {library}, and the kernel filters system calls")


def nftables(problem: str) -> pb.Finding:
    if not problem:
        return findings.ok("nftables", "a table with balancing, rejecting and masquerading was loaded")
    return findings.failed(
        "nftables",
        f"services have no virtual addresses and no published ports here: {problem}",
        "`apt install nftables`, and load the modules nf_tables, nft_chain_nat and nft_reject_inet",
    )


def vxlan(problem: str) -> pb.Finding:
    if not problem:
        return findings.ok("vxlan", "a tunnel was made")
    text = f"nodes that do not share a segment with this one do not reach its tasks: {problem}"
    return findings.warning("vxlan", text, "`modprobe vxlan`, or keep all nodes on one segment")


def control_groups(mode: str, controllers: Collection[str]) -> pb.Finding:
    """`mode`: `v2`, `v1` or `hybrid`; empty: nothing is mounted."""
    if not mode:
        text = "no control groups are mounted, so that no container starts"
        return findings.failed("cgroups", text, "mount cgroup2 at /sys/fs/cgroup")
    version = _MODES[mode]
    missing = [name for name in NEEDED if name not in controllers]
    if missing:
        text = f"{version} without {_listed(missing)}: such limits are refused, and tasks with them do not start"
        remedy = "enable them, with cgroup_enable=memory and the like on the kernel's command line"
        return findings.failed("cgroups", text, remedy)
    wanting = [name for name in WANTED if name not in controllers and _OF_VERSION_1.get(name, name) not in controllers]
    if wanting:
        text = f"{version} without {_listed(wanting)}: tasks that limit them do not start here"
        return findings.warning("cgroups", text, "enable them where the machine's control groups are set up")
    if mode == "v2":
        return findings.ok("cgroups", f"{version} with {_listed(sorted(controllers))}")
    text = f"{version}: it works; a task's pressure is not told, and its processes are killed one by one"
    return findings.warning("cgroups", text, "boot with systemd.unified_cgroup_hierarchy=1")


def disk(folder: str, total_bytes: int, free_bytes: int) -> pb.Finding:
    percent = 100 * free_bytes // max(1, total_bytes)
    said = f"{percent}% are free of {units.about_bytes(total_bytes)} at {folder}"
    remedy = f"free some, or put the state folder on a larger disk; `du -xh {folder} | sort -h | tail`"
    if percent < LEAST_PERCENT or free_bytes < LEAST_FREE_BYTES:
        return findings.failed("disk", f"{said}: images do not unpack, and containers cannot write", remedy)
    if percent < LOW_PERCENT:
        return findings.warning("disk", f"{said}: images that nothing needs are removed to make room", remedy)
    return findings.ok("disk", said)


def inodes(folder: str, total: int, free: int) -> pb.Finding:
    """Some file systems, such as btrfs, have as many as there is room for, and say 0."""
    if not total:
        return findings.ok("inodes", f"the file system at {folder} makes as many as there is room for")
    percent = 100 * free // total
    said = f"{percent}% of the files that the file system at {folder} can hold are free"
    remedy = "remove many small files, or make the file system anew with more inodes (`mkfs.ext4 -N`)"
    if percent < LEAST_PERCENT:
        return findings.failed("inodes", f"{said}: images do not unpack", remedy)
    if percent < LOW_PERCENT:
        return findings.warning("inodes", f"{said}: a large image may not unpack", remedy)
    return findings.ok("inodes", said)


def memory(total_bytes: int, free_bytes: int) -> pb.Finding:
    said = f"{units.about_bytes(free_bytes)} are free of {units.about_bytes(total_bytes)}"
    if free_bytes < LEAST_MEMORY_BYTES:
        text = f"{said}: the kernel may end the agent or a container at any moment"
        return findings.warning("memory", text, "stop something, or give the machine more memory")
    return findings.ok("memory", said)


def port(asked: Port) -> pb.Finding:
    check = f"port {asked.number}/{asked.protocol}"
    if not asked.holder:
        return findings.ok(check, f"free, for {asked.purpose}")
    if asked.ours:
        return findings.ok(check, f"the agent has it, for {asked.purpose}")
    return findings.failed(
        check, f"{asked.holder} has it, so that there is no place for {asked.purpose}", f"end that, or {asked.option}"
    )


def ids(problem: str) -> pb.Finding:
    if not problem:
        return findings.ok("user ids", "nobody else has those that containers get")
    return findings.failed("user ids", problem, "give the agent others with --ids")


def kept_clock(kept: bool) -> pb.Finding:
    if kept:
        return findings.ok("clock", "something keeps it right")
    return findings.warning(
        "clock",
        "nothing keeps it right: from five minutes off, the machine cannot join, and certificates are not believed",
        "`timedatectl set-ntp true`, or install chrony",
    )


def clock_against(whose: str, difference_ms: int, uncertain_ms: int = 0) -> pb.Finding:
    """`difference_ms`: of this clock, ahead of the other one."""
    size_ms = abs(difference_ms) - uncertain_ms
    way = "ahead of" if difference_ms > 0 else "behind"
    said = f"{_time(abs(difference_ms))} {way} {whose}"
    remedy = "`timedatectl set-ntp true` on both machines, or install chrony"
    if size_ms > CLOCK_FAILED_MS:
        return findings.failed("clock", f"{said}: certificates are not believed, and nobody joins", remedy)
    if size_ms > CLOCK_WARNING_MS:
        return findings.warning("clock", f"{said}: logs and events are out of order", remedy)
    return findings.ok("clock", f"within {_time(max(abs(difference_ms), uncertain_ms, 1))} of {whose}")


def certificate(facts: Facts, now_ms: int, anew: str) -> pb.Finding:
    """`anew`: the command that gets another one."""
    who = facts.identity
    if now_ms < facts.not_before_ms:
        text = f"that of {who} is valid only in {_time(facts.not_before_ms - now_ms)}: this machine's clock is behind"
        return findings.failed("certificate", text, "set the clock: `timedatectl set-ntp true`")
    left_ms = facts.not_after_ms - now_ms
    if left_ms <= 0:
        text = f"that of {who} expired {_time(-left_ms)} ago: nobody lets this machine in"
        return findings.failed("certificate", text, f"`{anew}` with a new token")
    if now_ms > facts.not_before_ms + LATE * (facts.not_after_ms - facts.not_before_ms):
        text = f"that of {who} expires in {_time(left_ms)}, and should have been renewed"
        remedy = "see why in the log; the program has to run and reach the control plane to renew it"
        return findings.warning("certificate", text, remedy)
    return findings.ok("certificate", f"that of {who} is good for {_time(left_ms)}")


def mtu(link: str, size_bytes: int, address: str) -> pb.Finding:
    """`link`: which has the node's address; empty: none has."""
    if not link:
        text = f"no interface of this machine has the address {address}: other nodes do not reach it"
        return findings.failed("address", text, "give the agent an --address of this machine; `ip address` lists them")
    if size_bytes < SMALLEST_MTU:
        text = f"{link} takes packets of {size_bytes} bytes: those of tasks would not go through a tunnel"
        return findings.failed("mtu", text, f"`ip link set {link} mtu 1500`, and the same in the machine's set-up")
    return findings.ok("mtu", f"{link} with {address} takes packets of {size_bytes} bytes")


def names(servers: Mapping[str, str]) -> pb.Finding:
    """Why each name server of this machine does not answer; empty: it does."""
    if not servers:
        text = "this machine knows no name server: tasks resolve the cluster's names, and none outside of it"
        return findings.warning("dns", text, "name one in /etc/resolv.conf")
    silent = {server: why for server, why in servers.items() if why}
    told = "; ".join(f"{server}: {why}" for server, why in silent.items())
    if len(silent) == len(servers):
        text = f"no name server answers ({told}): tasks resolve the cluster's names, and none outside of it"
        return findings.warning("dns", text, "mend the way to it, or name another one in /etc/resolv.conf")
    if silent:
        text = f"some name servers do not answer ({told}): names outside of the cluster may take seconds"
        return findings.warning("dns", text, "mend the way to them, or take them out of /etc/resolv.conf")
    return findings.ok("dns", f"{_listed(servers)} answer" + ("s" if len(servers) == 1 else ""))


def _listed(names_: Iterable[str]) -> str:
    return ", ".join(names_)


def _time(length_ms: int) -> str:
    """`3 ms`, `2.5 s`, `7 min`, `5 h`, `80 days`."""
    for most_ms, size_ms, word in ((1_000, 1, "ms"), (60_000, 1_000, "s"), (3_600_000, 60_000, "min")):
        if length_ms < most_ms:
            return f"{length_ms / size_ms:.3g} {word}"
    hours = length_ms // 3_600_000
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"
