"""Mappings of ids are checked before the kernel sees them."""

from typing import Any

import pytest

from runtime import defaults, errors, spec
from runtime.spec import mappings
from runtime.spec.mappings import IdRange


def ids(inside: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": size}


def base(uids: list[dict[str, int]], gids: list[dict[str, int]] | None = None) -> dict[str, Any]:
    config = defaults.config(["true"], cgroups_path="/orch/n1/c1")
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"].update(uidMappings=uids, gidMappings=[ids(0, 100000, 65536)] if gids is None else gids)
    return config


def test_mappings_are_read() -> None:
    """Any number of ranges, in any order; the container's root is known by its host's ids."""
    found = spec.parse(base([ids(10, 5000, 5), ids(0, 1000, 1)]))
    assert found.user_namespace is not None
    assert found.id_maps is not None
    assert found.id_maps.root == (1000, 100000)
    assert [mappings.outside(found.id_maps.uids, number) for number in (0, 1, 10, 14, 15)] == [
        *(1000, None, 5000, 5004, None)
    ]


def test_the_kernels_table_is_read_as_it_was_written() -> None:
    ranges = (IdRange(inside=0, outside=1000, size=1), IdRange(inside=1, outside=100000, size=2**32 - 100002))
    assert mappings.parse_text(mappings.text(ranges)) == ranges


REFUSED = [
    ([ids(0, 9, 1)], [], "linux.gidMappings: is required beside uidMappings"),
    ([], [ids(0, 9, 1)], "linux.uidMappings: is required beside gidMappings"),
    ([], [], "linux.uidMappings: is required for a new user namespace"),
    ([ids(1, 9, 1)], None, "linux.uidMappings: has no line for id 0"),
    ([ids(0, 9, 5), ids(4, 99, 1)], None, "linux.uidMappings: containerID 4 is in two lines"),
    ([ids(0, 9, 5), ids(5, 13, 1)], None, "linux.uidMappings: hostID 13 is in two lines"),
    ([ids(0, 9, 0)], None, "linux.uidMappings[0].size: must be between 1 and"),
    ([ids(-1, 9, 1)], None, "linux.uidMappings[0].containerID: must be between 0 and"),
    ([ids(0, 2**32 - 2, 2)], None, "linux.uidMappings[0].size: 2 leads beyond the highest id 4294967294"),
    ([ids(number, 2 * number, 1) for number in range(341)], None, "linux.uidMappings: has 341 lines"),
    ([ids(number, 10**9 + number, 1) for number in range(340)], None, "linux.uidMappings: is longer than the 4095"),
    ([{**ids(0, 9, 1), "hostId": 9}], None, "linux.uidMappings[0].hostId: unknown field"),
]


@pytest.mark.parametrize(("uids", "gids", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refused(uids: list[dict[str, int]], gids: list[dict[str, int]] | None, message: str) -> None:
    """What the kernel would refuse, or cut off, is refused by its field."""
    with pytest.raises(errors.InvalidSpec) as caught:
        spec.parse(base(uids, gids))
    assert caught.value.message.startswith(message)


def test_mappings_without_a_user_namespace_are_refused() -> None:
    config = base([ids(0, 9, 1)])
    config["linux"]["namespaces"].pop()
    with pytest.raises(errors.InvalidSpec, match=r"linux\.uidMappings: needs a user namespace"):
        spec.parse(config)


def test_mounts_are_idmapped_by_their_own_mappings_or_the_containers() -> None:
    """`idmap` needs one of the two; mappings alone mean `idmap`; only a bind mount can be idmapped."""
    own = {"destination": "/x", "source": "/y", "options": ["bind"], "uidMappings": [ids(0, 5, 1)]}
    own["gidMappings"] = own["uidMappings"]
    bare = {"destination": "/x", "source": "/y", "options": ["bind", "ridmap"]}
    config = defaults.config(["true"], cgroups_path="/orch/n1/c1")
    config["mounts"] = [own]
    (mount,) = spec.parse(config).mounts
    assert mount.id_maps is not None
    assert not mount.options.idmap_recursive
    config["mounts"] = [bare]
    with pytest.raises(errors.InvalidSpec, match=r"mounts\[0\]\.uidMappings: is required for idmap"):
        spec.parse(config)
    (mount,) = spec.parse({**base([ids(0, 9, 1)]), "mounts": [bare]}).mounts
    assert mount.options.idmap_recursive
    config["mounts"] = [{**own, "type": "tmpfs", "options": []}]
    with pytest.raises(errors.InvalidSpec, match=r"mounts\[0\]\.uidMappings: is for bind mounts only"):
        spec.parse(config)
