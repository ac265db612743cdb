"""Network namespaces that belong to a pinned user namespace, and containers that come and go in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, errors, state
from tests.integration.runtime.conftest import Box
from tests.integration.runtime.test_exec import execute
from tests.integration.runtime.test_userns import FIRST, owner_of

pytestmark = pytest.mark.root

MAPPING = [{"containerID": 0, "hostID": FIRST, "size": 65536}]


@pytest.fixture
def pins(box: Box, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The paths of a network namespace and of its owner, unpinned after the test."""
    path, owner = str(tmp_path / "net"), str(tmp_path / "user")
    box.launcher.create_network(path, owner={"path": owner, "uidMappings": MAPPING, "gidMappings": MAPPING})
    yield path, owner
    box.launcher.delete_network(path, owner=owner)
    assert not Path(path).exists()
    assert not Path(owner).exists()


def joined(box: Box, pins: tuple[str, str], name: str, *args: str) -> dict[str, Any]:
    """A container in both."""
    config = box.config(name, *args)
    defaults.give_user_namespace(config, first_id=FIRST, path=pins[1])
    linux = config["linux"]
    linux["namespaces"] = [
        {**entry, "path": pins[0]} if entry["type"] == "network" else entry for entry in linux["namespaces"]
    ]
    linux["sysctl"] = {"net.ipv4.ping_group_range": f"{FIRST} {FIRST + 65535}", "net.ipv4.ip_default_ttl": "77"}
    return config


def inode(path: str) -> int:
    return Path(path).stat().st_ino


def test_the_containers_root_rules_its_network(box: Box, pins: tuple[str, str]) -> None:
    """It may configure it; what the configuration says of its parameters holds, in the container's own ids."""
    script = (
        "ip addr add 10.9.8.7/24 dev lo && ip addr show lo | grep -c 10.9.8.7/24;"
        "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_default_ttl; ls /sys/class/net; id -u"
    )
    config = joined(box, pins, "a", "sh", "-c", script)
    for held in config["process"]["capabilities"].values():
        held.append("CAP_NET_ADMIN")
    box.create("a", config)
    assert box.ended("a").exit_code == 0, box.output("a")
    assert box.output("a").split() == ["1", "0", "65535", "77", "lo", "0"]


def test_a_parameter_that_is_not_there(box: Box, pins: tuple[str, str]) -> None:
    """Is told with what may be the reason: older kernels keep net.core from networks of user namespaces."""
    config = joined(box, pins, "a", "true")
    config["linux"]["sysctl"] = {"net.core.nothing": "1"}
    with pytest.raises(
        errors.InvalidSpec, match=r"linux\.sysctl\[net\.core\.nothing\]: .* belongs to a user namespace"
    ):
        box.create("a", config)


def test_every_container_in_it_has_the_same_users(box: Box, pins: tuple[str, str]) -> None:
    """One that takes the place of another is in the very same namespaces, and so is what is executed in it."""
    seen = set()
    for name in ("a", "b"):
        box.create(name, joined(box, pins, name, "sleep", "1000"), start=True)
        pid = state.load(box.root, name).pid
        seen.add((inode(f"/proc/{pid}/ns/user"), inode(f"/proc/{pid}/ns/net")))
        assert owner_of(pid, "net") == owner_of(pid, "uts")
        code, out = execute(box, name, "sh", "-c", "cd /proc/self/ns; readlink user; readlink net")
        assert code == 0
        assert out.split() == [f"user:[{inode(pins[1])}]", f"net:[{inode(pins[0])}]"]
        box.delete(name, force=True)
    assert seen == {(inode(pins[1]), inode(pins[0]))}


def test_what_cannot_be_made_leaves_nothing(box: Box, pins: tuple[str, str], tmp_path: Path) -> None:
    """Neither pin, and no half of both; a request that is wrong is refused with its field."""
    other = str(tmp_path / "other")
    whole = {"path": other, "uidMappings": MAPPING, "gidMappings": MAPPING}
    with pytest.raises(errors.SetupFailed, match="network namespace"):
        box.launcher.create_network(pins[0], owner=whole)  # taken
    assert not Path(other).exists()
    for owner, complaint in (
        ({**whole, "uidMappings": None}, r"owner\.uidMappings: is required"),
        ({**whole, "path": "x"}, r"owner\.path: 'x' must be an absolute path"),
        ({"path": other}, r"owner\.uidMappings: is required"),
        ({**whole, "more": 1}, r"owner\.more: unknown field"),
    ):
        with pytest.raises(errors.InvalidSpec, match=complaint):
            box.launcher.create_network(str(tmp_path / "new"), owner=owner)
    assert not (tmp_path / "new").exists()
