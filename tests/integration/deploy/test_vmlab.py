"""The laboratory's keeper with real virtual machines, whose only program says that it is there.

The laboratory as a whole, with Debian in its machines, is `make test-vm`'s.
"""

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploy.local import control, errors, network, processes
from deploy.vmlab import accelerator, initial, keeping, lan, plan, qemu
from tests.support.waiting import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the virtual machine is an x86_64"),
]
BOOT_TIMEOUT_S = 60
SIGN = "a guest is up"
INIT = f"""\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
echo '{SIGN}' >/dev/ttyS0
while :; do /bin/busybox sleep 1000; done
"""
READS_ITS_DISK = """\
#!/bin/busybox sh
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t devtmpfs devtmpfs /dev
until [ -b /dev/vda ]; do /bin/busybox usleep 20000; done
echo "the disk says $(/bin/busybox head -c 4 /dev/vda)" >/dev/ttyS0
printf kept | /bin/busybox dd of=/dev/vda conv=notrunc,fsync 2>/dev/null
/bin/busybox poweroff -f
"""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[plan.Places]:
    """Of a laboratory that is gone after the test."""
    found = plan.Places(cache=tmp_path)
    yield found
    keeping.end(found)


def tiny(places: plan.Places) -> dict[str, Sequence[str]]:
    """How each machine is started, with a card on the LAN and nothing to do."""
    archive = places.cache / "initial"
    initial.write(archive, {"init": INIT.encode(), "bin/busybox": initial.BUSYBOX.read_bytes()})
    machine = qemu.machine(
        qemu.EMULATION, kernel=initial.kernel(), initial=archive, parameters="", memory_mb=128, processors=1
    )
    return {
        one.name: [
            *machine,
            *("-netdev", f"tap,id=lan,ifname={one.tap},script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=lan,romfile="),
            *("-chardev", f"file,id=console,path={places.console(one)},append=on", "-serial", "chardev:console"),
        ]
        for one in plan.MACHINES
    }


def begin(places: plan.Places, owner: int) -> processes.Process:
    return keeping.begin(places, lambda: tiny(places), owner=owner)


def ask(places: plan.Places, verb: str, node: str = "") -> None:
    control.ask(places.run, control.Request(verb=verb, node=node))


def boots(places: plan.Places, machine: plan.Machine) -> int:
    """How often a guest has said that it is there."""
    console = places.console(machine)
    return console.read_text(errors="replace").count(SIGN) if console.exists() else 0


def await_boots(places: plan.Places, machine: plan.Machine, count: int) -> None:
    what = f"{machine.name} has booted {count} times: {keeping.tail(places.log(machine.name))}"
    until(lambda: boots(places, machine) >= count, what=what, timeout_s=BOOT_TIMEOUT_S)


def machines_of(keeper: processes.Process) -> list[processes.Process]:
    return [processes.of(pid) for pid in processes.children(keeper.pid)]


def test_a_machine_whose_plug_was_pulled_boots_again_and_the_others_stay_on(places: plan.Places) -> None:
    """As in a power cut: at once, and until somebody switches it on."""
    keeper = begin(places, os.getpid())
    for machine in plan.MACHINES:
        await_boots(places, machine, 1)
    before = {one.pid for one in machines_of(keeper)}
    assert len(before) == plan.COUNT

    ask(places, "kill", "vm2")
    left = {one.pid for one in machines_of(keeper)}
    assert len(left) == plan.COUNT - 1
    assert left < before

    ask(places, "start", "vm2")
    await_boots(places, plan.machine(2), 2)
    assert left < {one.pid for one in machines_of(keeper)}
    with pytest.raises(errors.LocalError, match="vm2 is on"):
        ask(places, "start", "vm2")
    with pytest.raises(errors.LocalError, match="no machine is called vm9: there are vm1, vm2, vm3"):
        ask(places, "start", "vm9")


def test_a_killed_keeper_leaves_no_machine_and_no_network(places: plan.Places) -> None:
    """However it ends, everything goes with it."""
    keeper = begin(places, os.getpid())
    namespace = lan.of(keeper)
    with network.inside(namespace):
        assert network.exists(lan.BRIDGE)
        assert all(network.exists(machine.tap) for machine in plan.MACHINES)
    os.close(namespace)
    assert not network.exists(plan.MACHINES[0].tap), "the links were made on the host"
    until(lambda: len(machines_of(keeper)) == plan.COUNT, what="every machine is on")
    machines = machines_of(keeper)

    keeper.signal(signal.SIGKILL)
    assert keeper.wait(10)
    assert all(machine.wait(10) for machine in machines)
    with pytest.raises(errors.LocalError, match="no laboratory is up"):
        keeping.of(places)
    assert keeping.end(places), "what the machines have written was there to be removed"
    assert not list(places.run.iterdir())


def test_it_ends_with_its_owner_unless_it_was_released(places: plan.Places) -> None:
    """A broken-off `make vmlab` leaves nothing; one that came to its end leaves the machines running."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        abandoned = begin(places, owner.pid)
        owner.kill()
    assert abandoned.wait(20), "its owner has ended, and it goes on"

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        released = begin(places, owner.pid)
        with pytest.raises(errors.LocalError, match="a laboratory is up already"):
            begin(places, owner.pid)
        ask(places, "release")
        owner.kill()
    assert keeping.of(places) == released
    ask(places, "kill", "vm1")  # it still does what it is told
    assert keeping.end(places)
    assert not released.alive


def test_an_overlay_keeps_what_a_machine_writes_and_its_base_stays(tmp_path: Path) -> None:
    """Machines share an image; after a power cut each finds what it had synced."""
    base, overlay, archive = tmp_path / "base", tmp_path / "overlay", tmp_path / "initial"
    base.write_bytes(b"base".ljust(1 << 20, b"\0"))
    modules = {f"modules/{Path(name).name}": initial.module(name).read_bytes() for name in initial.DISK_MODULES}
    names = " ".join(Path(name).name for name in initial.DISK_MODULES)
    program = READS_ITS_DISK.format(modules=names).encode()
    initial.write(archive, {"init": program, "bin/busybox": initial.BUSYBOX.read_bytes(), **modules})
    qemu.make_overlay(overlay, base)
    command = qemu.machine(
        qemu.EMULATION, kernel=initial.kernel(), initial=archive, parameters="", memory_mb=128, processors=1
    )
    command += ["-drive", f"file={overlay},format=qcow2,if=virtio,cache=unsafe", "-serial", "stdio", "-no-reboot"]

    said = [
        subprocess.run(command, capture_output=True, text=True, timeout=BOOT_TIMEOUT_S, check=True).stdout
        for _ in range(2)
    ]
    assert "the disk says base" in said[0]
    assert "the disk says kept" in said[1]
    assert base.read_bytes()[:4] == b"base"


def test_what_no_guest_boots_with_is_not_chosen() -> None:
    """That something is there is not believed: a guest has to come up within the bound."""
    assert accelerator.guest_boots(qemu.EMULATION, timeout_s=BOOT_TIMEOUT_S)
    assert not accelerator.guest_boots(qemu.EMULATION, timeout_s=0.2), "the bound does not hold"
    assert not accelerator.guest_boots(("-accel", "no-such-accelerator"), timeout_s=BOOT_TIMEOUT_S)
