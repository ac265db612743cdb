"""What a template may say of its isolation, and the OCI configuration that comes of it."""

import json
from typing import Any

import pytest

from agent.core import container, isolation, seccomp
from agent.core.isolation import DeviceNode, Machine
from agent.errors import Refused
from manifests import words
from protos.orch.v1 import objects_pb2 as pb
from runtime import capabilities, defaults
from tests.support.fake_leader import task, template

FUSE = DeviceNode(path="/dev/fuse", kind="c", major=10, minor=229, mode=0o666, uid=0, gid=0)
DISK = DeviceNode(path="/dev/sda", kind="b", major=8, minor=0, mode=0o660, uid=0, gid=6)
MACHINE = Machine(
    capabilities=frozenset(capabilities.NAMES) - {"CAP_SYS_RESOURCE"},
    known_capabilities=frozenset(capabilities.NAMES),
    kernel=(6, 1),
    default_filter=lambda held: {"for": sorted(held)},
)
NODE = container.NodeContext(
    name="n1", cgroup_parent="/orch/test", base=defaults.config(["-"], cgroups_path="/-"), machine=MACHINE
)
IMAGE = container.PreparedImage(digest="sha256:0", layers=("/l",), cmd=("/web",))


def config(node: container.NodeContext = NODE, root_id: int = 0, **fields: Any) -> dict[str, Any]:
    """The configuration of a container with these fields of its manifest, with the node's users unless told."""
    made = template("/web")
    made.container.MergeFrom(pb.Container(**fields))
    found = {node.path: node for node in (FUSE, DISK)}
    request = container.request(
        task=task("web-1-a"),
        template=made,
        image=IMAGE,
        node=node,
        address="",
        network_namespace="/n",
        user_namespace="/u",
        root_id=root_id,
        devices=found,
    )
    return dict(request.config)


def sets(**fields: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = config(**fields)["process"]["capabilities"]
    return found


def test_a_container_that_asks_for_nothing_has_the_default_profile() -> None:
    """Fourteen capabilities, no new privileges, a filter, masks, no devices."""
    found, base = config(), defaults.config(["-"], cgroups_path="/-")
    held = found["process"]["capabilities"]
    assert set(held) == {"bounding", "effective", "permitted"}
    assert all(names == sorted(defaults.CAPABILITIES) for names in held.values())
    assert len(defaults.CAPABILITIES) == 14
    assert found["process"]["noNewPrivileges"] is True
    assert "oomScoreAdj" not in found["process"]
    for field in ("seccomp", "maskedPaths", "readonlyPaths", "sysctl"):
        assert found["linux"][field] == base["linux"][field]
    assert found["linux"]["resources"]["devices"] == base["linux"]["resources"]["devices"]
    assert found["linux"]["devices"] == []
    assert found["mounts"] == base["mounts"]


@pytest.mark.parametrize(
    ("add", "drop", "held"),
    [
        ([], ["ALL"], set()),
        (["CHOWN"], ["ALL"], {"CAP_CHOWN"}),
        (["CAP_SYS_TIME"], ["CAP_ALL"], {"CAP_SYS_TIME"}),
        (["NET_ADMIN"], ["MKNOD"], {*defaults.CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_MKNOD"}),
        (["ALL"], ["SYS_ADMIN"], MACHINE.capabilities - {"CAP_SYS_ADMIN"}),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(add: list[str], drop: list[str], held: set[str]) -> None:
    """`ALL` is what the agent itself has: nobody can give more."""
    found = sets(capabilities=pb.Capabilities(add=add, drop=drop))
    assert set(found) == {"bounding", "effective", "permitted"}
    assert all(set(names) == held for names in found.values())


def test_what_is_added_reaches_a_user_who_is_not_root() -> None:
    """As an ambient capability, since execve(2) takes the others from them."""
    added = pb.Capabilities(add=["NET_BIND_SERVICE"], drop=["ALL"])
    assert sets(user="1000", capabilities=added)["ambient"] == ["CAP_NET_BIND_SERVICE"]
    assert sets(user="1000", capabilities=added)["inheritable"] == ["CAP_NET_BIND_SERVICE"]
    for root in ("", "0", "root", "0:0"):
        assert "ambient" not in sets(user=root, capabilities=added)
    assert "ambient" not in sets(user="1000")


def test_a_capability_that_the_agent_lacks_is_refused() -> None:
    """By its name; the kernel would say "not permitted"."""
    with pytest.raises(Refused, match="does not have CAP_SYS_RESOURCE"):
        config(capabilities=pb.Capabilities(add=["SYS_RESOURCE"]))


ROOT = 1 << 20


def test_users_of_its_own() -> None:
    """It joins the namespace that its network belongs to, with what that maps; the node's users are the rest's."""
    linux = config(root_id=ROOT)["linux"]
    assert {"type": "user", "path": "/u"} in linux["namespaces"]
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": ROOT, "size": 65536}]
    assert linux["sysctl"]["net.ipv4.ping_group_range"] == f"{ROOT} {ROOT + 65535}"
    assert "uidMappings" not in config()["linux"]
    assert config()["linux"]["sysctl"] == defaults.SYSCTL


@pytest.mark.parametrize(
    ("written", "set_to"),
    [("0 1000", f"{ROOT} {ROOT + 1000}"), ("1\t0", f"{ROOT + 1} {ROOT}"), ("none", "none"), ("1 x", "1 x")],
)
def test_groups_that_may_ping_are_the_containers(written: str, set_to: str) -> None:
    """The parameter is set from outside, in the node's ids; what is no range is left to the kernel to refuse."""
    found = config(root_id=ROOT, sysctls={"net.ipv4.ping_group_range": written})["linux"]["sysctl"]
    assert found["net.ipv4.ping_group_range"] == set_to


def test_capabilities_among_users_of_its_own_are_all_there_are() -> None:
    """Also those that the agent does not have: they reach no further than the container."""
    every = config(root_id=ROOT, capabilities=pb.Capabilities(add=["ALL"]))["process"]["capabilities"]
    assert set(every["bounding"]) == set(capabilities.NAMES)
    old = container.NodeContext(name="n1", cgroup_parent="/o", base=NODE.base, machine=Machine())
    with pytest.raises(Refused, match="kernel does not have CAP_SYS_RESOURCE"):
        config(old, ROOT, capabilities=pb.Capabilities(add=["SYS_RESOURCE"]))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"user": "65536"}, "user 65536: 65536 is beyond the 65536 ids"),
        ({"user": "0:70000"}, "user 0:70000: 70000 is beyond"),
        ({"devices": [pb.Device(path="/dev/fuse", permissions="rwm")]}, "nodes of /dev/fuse cannot be made"),
    ],
)
def test_what_users_of_its_own_cannot_have_is_refused(fields: dict[str, Any], complaint: str) -> None:
    """With the way out; and with the node's users it is nothing special."""
    with pytest.raises(Refused, match=f"{complaint}.*`userns: host`"):
        config(root_id=ROOT, **fields)
    config(**fields)


def test_a_privileged_container_is_held_by_nothing() -> None:
    """All capabilities and devices, no filter, nothing masked, /sys and the cgroups writable."""
    found = config(privileged=True)
    linux = found["linux"]
    assert set(found["process"]["capabilities"]["bounding"]) == MACHINE.capabilities
    assert found["process"]["noNewPrivileges"] is False
    assert "seccomp" not in linux
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [device["path"] for device in linux["devices"]] == ["/dev/fuse", "/dev/sda"]
    assert not [mount for mount in found["mounts"] if "ro" in mount["options"]]


def test_devices() -> None:
    """The node as the host has it, at the place that was asked for, and a rule of the device cgroup behind the rest."""
    found = config(devices=[pb.Device(path="/dev/sda", container_path="/dev/disk", permissions="r")])["linux"]
    assert found["devices"] == [
        {"path": "/dev/disk", "type": "b", "major": 8, "minor": 0, "fileMode": 0o660, "uid": 0, "gid": 6}
    ]
    *before, last = found["resources"]["devices"]
    assert before == NODE.base["linux"]["resources"]["devices"]
    assert last == {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"}


def test_folders_in_memory() -> None:
    """Never for programs unless asked, with the memory limit as their size unless told, the upper ones first."""
    limits = pb.Resources(limits=pb.ResourceLimits(memory=1 << 20))
    folders = {"/tmp/x": pb.Tmpfs(size=4096, mode="0700", exec=True), "/tmp": pb.Tmpfs()}
    made = config(resources=limits, tmpfs=folders)["mounts"][-2:]
    assert [(mount["destination"], mount["options"]) for mount in made] == [
        ("/tmp", ["nosuid", "nodev", "noexec", "mode=1777", "size=1048576"]),
        ("/tmp/x", ["nosuid", "nodev", "mode=0700", "size=4096"]),
    ]


def test_shared_memory_kernel_parameters_and_the_order_of_kills() -> None:
    """Each replaces the default and leaves what is beside it."""
    found = config(shm_size=1 << 20, sysctls={"net.core.somaxconn": "7"}, oom_score_adj=100)
    (shm,) = (mount for mount in found["mounts"] if mount["destination"] == "/dev/shm")
    assert shm["options"] == ["nosuid", "noexec", "nodev", "mode=1777", "size=1048576"]
    assert found["linux"]["sysctl"] == {**defaults.SYSCTL, "net.core.somaxconn": "7"}
    assert found["process"]["oomScoreAdj"] == 100


def test_a_container_does_not_inherit_that_its_agent_is_spared() -> None:
    """Else the machine would kill something of its own before it."""
    spared = container.NodeContext(name="n1", cgroup_parent="/o", base=NODE.base, machine=Machine(oom_score_adj=-900))
    assert config(spared)["process"]["oomScoreAdj"] == 0


def test_filters() -> None:
    """The default one goes with the capabilities; none where that is asked; a profile is resolved."""
    assert "seccomp" not in config(seccomp="unconfined")["linux"]
    fewer = config(seccomp="default", capabilities=pb.Capabilities(drop=["ALL"]))
    assert fewer["linux"]["seccomp"] == {"for": []}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "architectures": None})
    assert config(seccomp=profile)["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}


def group(name: str, **fields: Any) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", **fields}


def test_a_profile_of_docker_is_resolved_for_the_container_and_its_machine() -> None:
    """Groups by capability, machine and kernel; `name` for `names`; null for nothing."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        ],
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "args": None, "comment": "x", "includes": {}, "excludes": {}},
            group("chroot", includes={"caps": ["CAP_SYS_CHROOT"]}),
            group("mount", includes={"caps": ["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"]}),
            group("clone", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            group("unshare", excludes={"caps": ["CAP_SYS_CHROOT"]}),
            group("arch_prctl", includes={"arches": ["amd64", "x32"]}),
            group("arm_sync", includes={"arches": ["arm64"]}),
            group("ptrace", includes={"minKernel": "4.8"}),
            group("newer", includes={"minKernel": "6.10"}),
        ],
    }
    found = seccomp.resolve(json.dumps(profile), capabilities=["CAP_SYS_CHROOT"], machine="x86_64", kernel=(6, 1))
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"][0] for rule in found["syscalls"]] == ["read", "chroot", "clone", "arch_prctl", "ptrace"]
    assert found["syscalls"][0] == {"names": ["read"], "action": "SCMP_ACT_ALLOW"}
    assert set(found) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}


def test_the_default_configuration_is_never_changed() -> None:
    """All containers of a node are made from it."""
    before = json.dumps(NODE.base)
    config(privileged=True, tmpfs={"/tmp": pb.Tmpfs()}, sysctls={"net.core.somaxconn": "7"}, shm_size=4096)
    assert json.dumps(NODE.base) == before


def test_the_words_of_manifests_are_the_names_of_the_runtime() -> None:
    """Two packages that cannot import each other know the same capabilities."""
    assert {f"CAP_{word}" for word in words.CAPABILITIES} == set(capabilities.NAMES)


def test_shm_is_where_the_runtime_mounts_it() -> None:
    """A default that is renamed must not lose its size."""
    assert isolation.SHM in {mount["destination"] for mount in NODE.base["mounts"]}
