"""The laboratory's plan: machines that differ, where Debian comes from, and the release after this one."""

from pathlib import Path

import pytest

from deploy.vmlab import bundles, image, plan, qemu


def parameters(machine: plan.Machine) -> str:
    """What the machine's kernel is told."""
    command = qemu.of_laboratory(
        machine,
        plan.Places(cache=Path("/cache")),
        qemu.EMULATION,
        kernel=Path("/kernel"),
        initial=Path("/initial"),
        disks=[Path("/cache/bundles.ext4")],
    )
    return command[command.index("-append") + 1]


def test_machines_share_an_image_and_differ_in_what_their_kernels_are_told() -> None:
    """Names, addresses, cards and ids are each machine's own."""
    assert "ip=10.77.0.12::10.77.0.1:255.255.255.0:vm2:eth0:none" in parameters(plan.machine(2))
    for attribute in ("name", "address", "tap", "hardware_address", "identity"):
        assert len({getattr(machine, attribute) for machine in plan.MACHINES}) == plan.COUNT
    assert len({parameters(machine) for machine in plan.MACHINES}) == plan.COUNT


@pytest.mark.parametrize("number", [0, plan.COUNT + 1])
def test_a_machine_that_is_not_there_is_named(number: int) -> None:
    """Whoever mistypes N learns which there are."""
    with pytest.raises(ValueError, match=f"there is no machine {number}: they are numbered from 1 to 3"):
        plan.machine(number)


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ("deb http://mirror.example/debian bookworm main", ["http://mirror.example/debian"]),
        ("Types: deb\nURIs: https://mirror.example/debian/\nSuites: trixie", ["https://mirror.example/debian/"]),
        ("# http://old.example/debian\nURIs: http://mirror.example/debian", ["http://mirror.example/debian"]),
        ("deb http://security.example/debian-security bookworm main", []),
        ("deb http://else.example/apt stable main", []),
    ],
)
def test_the_image_comes_from_where_apt_has_debian_from(sources: str, found: list[str]) -> None:
    """Both forms of sources are read; what is commented out or another archive is not taken."""
    assert image.mirrors(sources) == found


def test_the_next_release_has_the_next_number() -> None:
    """And nothing else about it changes."""
    before = '[project]\nname = "orch"\nversion = "0.1.9"\npython_version = "3.11"\n'
    assert bundles.raised(before) == before.replace("0.1.9", "0.1.10")
