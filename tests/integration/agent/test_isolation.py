"""What a container sees of what its manifest says, through the agent's own path: template → configuration → runtime."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import manifests
from agent.adapters.devices import NodeDevices, machine
from agent.adapters.disk import FileDisk
from agent.adapters.layout import Layout
from agent.adapters.logs import FileLogs
from agent.adapters.runtime import Launched
from agent.core import container, isolation, users
from agent.core.record import Exit
from agent.core.users import IdPool, Ids
from agent.errors import Refused
from protos.orch.v1 import objects_pb2 as pb
from runtime import capabilities, cgroups, client, defaults
from tests.support import rootfs
from tests.support.aio import bounded, until
from tests.support.fake_leader import task

pytestmark = pytest.mark.root

PARENT = f"/orch/test-isolation-{os.getpid()}"  # two runs of the suite may go on at once
Run = Callable[..., Awaitable[tuple[Exit, str]]]


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rootfs.busybox(tmp_path_factory.mktemp("image") / "root")


@contextlib.asynccontextmanager
async def running(layer: Path, folder: Path) -> AsyncIterator[Run]:
    """Runs containers as this node's agent would, to their end."""
    layout = Layout(folder / "state")
    FileDisk(layout)
    node = container.NodeContext(
        name="n1", cgroup_parent=PARENT, base=defaults.config(["-"], cgroups_path="/-"), machine=machine()
    )
    image = container.PreparedImage(digest="sha256:0", layers=(str(layer),))
    runtime = Launched(layout, now_ms=lambda: time.time_ns() // 1_000_000)
    namespace, owner = folder / "net", folder / "users"
    pool = IdPool(Ids.parse(users.DEFAULT))

    async def run(wanted: pb.Container, stop_after: str = "") -> tuple[Exit, str]:
        root_id = isolation.choose_root(task("a"), wanted, pool, "")
        await runtime.remove_network_namespace(namespace, owner=owner)
        await runtime.make_network_namespace(namespace, owner=owner, root_id=root_id)
        request = container.request(
            task=task("a"),
            template=pb.TaskTemplate(container=wanted),
            image=image,
            node=node,
            address="",
            network_namespace=str(namespace),
            user_namespace=str(owner),
            root_id=root_id,
            devices=NodeDevices().named_by(wanted),
        )
        await runtime.start(request)
        if stop_after:
            await until(lambda: stop_after in layout.log("a").read_text(), what=f"it says {stop_after}")
            await runtime.signal("a", "SIGTERM")
        ended = await runtime.wait("a")
        await runtime.delete("a")
        lines = [
            line.text.decode()
            async for batch in FileLogs(layout).read("a", tail=-1, since_ms=0, until=None)
            for line in batch
        ]
        return ended, "\n".join(lines)

    try:
        yield run
    finally:
        await runtime.remove_network_namespace(namespace, owner=owner)
        await runtime.close()
        for entry in client.list_containers(str(layout.run)):
            client.delete(str(layout.run), entry.id, force=True)
        cgroups.existing(cgroups.current_layout(), PARENT).delete()


async def said(layer: Path, folder: Path, script: str, **fields: object) -> str:
    """What a container with these fields of its manifest says; it must end well."""
    async with running(layer, folder) as run:
        wanted = pb.Container(image="busybox", command=["sh", "-c", script], **fields)  # type: ignore[arg-type]
        ended, output = await asyncio.wait_for(run(wanted), 20)
    assert ended.code == 0, (ended, output)
    return output


def sets(status: str) -> dict[str, int]:
    """The capability sets in proc_pid_status(5)."""
    rows = (line.split() for line in status.splitlines() if line.startswith("Cap"))
    return {name.rstrip(":"): int(value, 16) for name, value in rows}


DEVICES = ("/dev/fuse", "/dev/loop-control", "/dev/hwrng")
"""Such as no container has by itself."""


def own_bounding_set() -> int:
    return sets(Path("/proc/self/status").read_text())["CapBnd"]


def nodes_of_the_machine() -> set[str]:
    return {path.name for path in Path("/dev").iterdir() if path.is_char_device() and not path.is_symlink()}


def one_more_device() -> tuple[str, int]:
    """A device that no container has by itself, and its number."""
    for path in map(Path, DEVICES):
        if path.exists():
            return str(path), path.stat().st_rdev
    pytest.skip(f"this machine has none of {', '.join(DEVICES)}")


STATUS = "cat /proc/self/status"
DEFAULTS = capabilities.mask(defaults.CAPABILITIES)


@bounded(40)
async def test_safe_by_default(layer: Path, tmp_path: Path) -> None:
    """Fourteen capabilities and no way to more, a filter, masked files, a bound on processes."""
    output = await said(
        layer,
        tmp_path,
        f"{STATUS}; echo pids $(cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null); "
        "wc -c < /proc/timer_list; touch /proc/sys/kernel/panic 2>/dev/null || echo read-only; mount | grep ' / '",
    )
    found = sets(output)
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == DEFAULTS
    assert found["CapInh"] == found["CapAmb"] == 0
    assert "NoNewPrivs:\t1" in output
    assert "Seccomp:\t2" in output
    assert {"pids 4096", "0", "read-only"} <= set(output.splitlines())


@bounded(40)
async def test_a_user_who_is_not_root_keeps_what_was_added(layer: Path, tmp_path: Path) -> None:
    """And nothing else; the port that it is for can be listened on."""
    output = await said(
        layer,
        tmp_path,
        f"{STATUS}; nc -l -p 80 -w 1 < /dev/null; echo listened",
        user="1000:1000",
        sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"},
        capabilities=pb.Capabilities(drop=["ALL"], add=["NET_BIND_SERVICE"]),
    )
    one = capabilities.mask(("CAP_NET_BIND_SERVICE",))
    assert set(sets(output).values()) == {one}
    assert "Uid:\t1000\t1000\t1000\t1000" in output
    assert "denied" not in output


@bounded(40)
async def test_dropping_all_leaves_nothing(layer: Path, tmp_path: Path) -> None:
    """Root without capabilities is a user as any other."""
    output = await said(layer, tmp_path, f"{STATUS}; chown 1 /etc 2>/dev/null || echo refused", capabilities=drop_all())
    assert set(sets(output).values()) == {0}
    assert output.endswith("refused")


def drop_all() -> pb.Capabilities:
    return pb.Capabilities(drop=["ALL"])


@bounded(40)
async def test_a_privileged_container_is_root_of_the_node(layer: Path, tmp_path: Path) -> None:
    """All that the agent may do, without a filter, with nothing masked, and with the node's devices."""
    output = await said(
        layer,
        tmp_path,
        f"{STATUS}; mount -t tmpfs x /tmp && echo mounted; mount | grep -c ' on /proc/'; "
        "mount | grep -E '/sys |cgroup'; echo devices; ls /dev",
        privileged=True,
    )
    facts, _, devices = output.partition("devices\n")
    assert sets(facts)["CapEff"] == own_bounding_set()
    assert {"NoNewPrivs:\t0", "Seccomp:\t0", "mounted", "0"} <= set(facts.splitlines())
    assert "(ro," not in facts
    assert nodes_of_the_machine() - {"console"} <= set(devices.split())


@bounded(40)
async def test_memory_as_files(layer: Path, tmp_path: Path) -> None:
    """Folders in memory and /dev/shm with their sizes; programs only where that is said."""
    output = await said(
        layer,
        tmp_path,
        "df -k /dev/shm /scratch /tools | awk 'NR > 1 {print $6, $2}'; stat -c '%a' /scratch /tools; "
        "cp /bin/busybox /scratch/; /scratch/busybox true 2>/dev/null || echo not run; "
        "cp /bin/busybox /tools/; /tools/busybox true && echo run; touch /x 2>/dev/null || echo read-only",
        shm_size=1 << 20,
        tmpfs={"/scratch": pb.Tmpfs(size=4 << 20), "/tools": pb.Tmpfs(size=8 << 20, mode="0750", exec=True)},
        read_only_rootfs=True,
    )
    assert output.splitlines() == [
        "/dev/shm 1024", "/scratch 4096", "/tools 8192", "1777", "750", "not run", "run", "read-only",
    ]  # fmt: skip


@bounded(40)
async def test_names_folders_limits_and_parameters(layer: Path, tmp_path: Path) -> None:
    """Each as it was written."""
    output = await said(
        layer,
        tmp_path,
        "hostname; pwd; id -u; ulimit -n; ulimit -Hn; cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj "
        "/proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max",
        hostname="box",
        working_dir="/tmp",
        user="1000",
        ulimits={"nofile": pb.Ulimit(soft=100, hard=200)},
        sysctls={"net.core.somaxconn": "99", "kernel.shmmax": "65536", "fs.mqueue.msg_max": "7"},
        oom_score_adj=321,
    )
    assert output.splitlines() == ["box", "/tmp", "1000", "100", "200", "99", "321", "65536", "7"]


@bounded(40)
async def test_a_device_of_the_node(layer: Path, tmp_path: Path) -> None:
    """Where it was asked for, and for what: it may be read and not written, and its number cannot be had otherwise."""
    device, number = one_more_device()
    script = (
        "(: < /dev/mine) && echo read; (: > /dev/mine) 2>/dev/null || echo not written; "
        f"mknod /dev/other c {os.major(number)} {os.minor(number)} && (: > /dev/other) 2>/dev/null || echo not written"
    )
    wanted = pb.Device(path=device, container_path="/dev/mine", permissions="r")
    output = await said(layer, tmp_path, script, devices=[wanted], userns=pb.USER_NAMESPACE_HOST)
    assert output.splitlines() == ["read", "not written", "not written"]
    script = (
        f"ls /dev/mine; mknod /dev/other c {os.major(number)} {os.minor(number)} && (: < /dev/other) || echo not read"
    )
    assert "not read" in await said(layer, tmp_path / "2", script, userns=pb.USER_NAMESPACE_HOST)


@bounded(40)
async def test_a_device_among_users_of_its_own(layer: Path, tmp_path: Path) -> None:
    """It is root's inside, and works as asked; its node cannot be made, and who asks for that is told."""
    device, _ = one_more_device()
    script = "stat -c %u /dev/mine; (: < /dev/mine) && echo read; (: > /dev/mine) 2>/dev/null || echo not written"
    wanted = pb.Device(path=device, container_path="/dev/mine", permissions="r")
    output = await said(layer, tmp_path, f"{script}; mknod /x c 1 3 2>/dev/null || echo not made", devices=[wanted])
    assert output.splitlines() == ["0", "read", "not written", "not made"]
    with pytest.raises(Refused, match=f"nodes of {device} cannot be made"):
        await said(layer, tmp_path / "2", script, devices=[pb.Device(path=device, permissions="rwm")])


@bounded(40)
async def test_capabilities_reach_no_further_than_the_container(layer: Path, tmp_path: Path) -> None:
    """Its own network and mounts obey; more than the agent has can be had; nothing of the node hears of it."""
    output = await said(
        layer,
        tmp_path,
        "ip addr add 10.9.8.7/24 dev lo && echo network; mkdir /m && mount -t tmpfs x /m && echo mounted;"
        "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo not the kernel;"
        f"nice -n -5 true 2>/dev/null || echo not the processor; {STATUS}",
        capabilities=pb.Capabilities(add=["NET_ADMIN", "SYS_ADMIN", "SYS_RESOURCE", "SYS_NICE"]),
    )
    assert output.splitlines()[:3] == ["network", "mounted", "not the kernel"]
    assert "not the processor" in output
    assert sets(output)["CapEff"] >> capabilities.NUMBERS["CAP_SYS_RESOURCE"] & 1


@bounded(40)
async def test_what_a_user_who_is_not_root_can_reach(layer: Path, tmp_path: Path) -> None:
    """Its output by name, its folders in memory, a low port; and each belongs to whom it should."""
    output = await said(
        layer,
        tmp_path,
        "id; echo again > /dev/stdout; touch /scratch/x && stat -c '%u:%g' /scratch /scratch/x /etc/passwd /proc/1;"
        "cat /proc/sys/net/ipv4/ping_group_range; nc -l -p 80 -w 1 < /dev/null; echo listened",
        user="app",
        tmpfs={"/scratch": pb.Tmpfs(size=1 << 20)},
    )
    assert output.splitlines() == [
        "uid=1000(app) gid=1001(app) groups=29(audio),44(video)", "again",
        "0:0", "1000:1001", "0:0", "1000:1001", "0\t65535", "nc: timed out", "listened",
    ]  # fmt: skip


def node_users() -> list[str]:
    """What is mapped here, and by which namespace."""
    return [*Path("/proc/self/uid_map").read_text().split(), str(Path("/proc/self/ns/user").readlink())]


@bounded(40)
async def test_whose_users_they_are(layer: Path, tmp_path: Path) -> None:
    """Its own by default, the node's when that is asked for, and always when it is privileged."""
    script = "cat /proc/self/uid_map /proc/self/gid_map; readlink /proc/self/ns/user"
    first, *_ = users.DEFAULT.split(":")
    own = (await said(layer, tmp_path / "1", script)).split()
    assert own[:-1] == ["0", first, "65536"] * 2
    here = node_users()
    for fields in ({"userns": pb.USER_NAMESPACE_HOST}, {"privileged": True}):
        of_the_node = (await said(layer, tmp_path / str(fields), script, **fields)).split()
        assert [*of_the_node[:3], of_the_node[-1]] == here
        assert of_the_node[-1] != own[-1]


@bounded(40)
async def test_what_the_node_does_not_have(layer: Path, tmp_path: Path) -> None:
    """Is refused by its name before anything is made."""
    async with running(layer, tmp_path) as run:
        for path, complaint in (("/dev/nothing", "has no /dev/nothing"), ("/dev/shm", "is not a device")):
            with pytest.raises(Refused, match=complaint):
                await run(pb.Container(image="busybox", command=["true"], devices=[pb.Device(path=path)]))


@bounded(40)
async def test_filters_of_system_calls(layer: Path, tmp_path: Path) -> None:
    """None, or one's own: here one that forbids to make folders."""
    script = "grep Seccomp: /proc/self/status; mkdir /made 2>/dev/null || echo refused"
    assert await said(layer, tmp_path / "1", script, seccomp="unconfined") == "Seccomp:\t0"
    profile = (
        '{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],'
        ' "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "includes": {}}]}'
    )
    assert await said(layer, tmp_path / "2", script, seccomp=profile) == "Seccomp:\t2\nrefused"


@bounded(40)
async def test_gaining_rights_has_to_be_allowed(layer: Path, tmp_path: Path) -> None:
    """A setuid program is one as any other, unless the manifest says that it may be more."""
    script = "grep NoNewPrivs /proc/self/status"
    assert await said(layer, tmp_path / "1", script) == "NoNewPrivs:\t1"
    assert await said(layer, tmp_path / "2", script, allow_privilege_escalation=True) == "NoNewPrivs:\t0"


@bounded(40)
async def test_a_reaper_at_process_1(layer: Path, tmp_path: Path) -> None:
    """The program is process 2."""
    assert await said(layer, tmp_path, "echo $$; tr -d '\\0' < /proc/1/cmdline", init=True) == "2\norch-init"


def example() -> pb.Container:
    """The container of the example, with its defaults, as an agent gets it."""
    text = (Path(manifests.__file__).parent / "examples" / "hardened.yaml").read_bytes()
    (service,) = manifests.read([manifests.Source(name="hardened.yaml", text=text)]).objects
    assert isinstance(service, pb.Service)
    return manifests.resolve(service).spec.template.container


@bounded(40)
async def test_the_hardened_example_does_what_it_says(layer: Path, tmp_path: Path) -> None:
    """No root, one capability, and a stop that is heard, since process 1 passes it on."""
    async with running(layer, tmp_path) as run:
        ended, output = await asyncio.wait_for(run(example(), "Seccomp"), 20)
    assert ended.code == 143
    assert output.startswith("uid=1000(app) gid=1000")
    assert set(sets(output).values()) == {capabilities.mask(("CAP_NET_BIND_SERVICE",))}
