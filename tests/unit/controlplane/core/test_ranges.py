"""The ranges that a cluster is started with: what is taken, and what is refused in which words."""

import pytest

from controlplane.core import ranges
from protos.families import V4, V6


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("10.112.0.0/16", {V4: "10.112.0.0/16"}),
        ("10.112.0.0/16,fd00:112::/48", {V4: "10.112.0.0/16", V6: "fd00:112::/48"}),
        ("FD00:112::/48, 10.112.0.0/16", {V4: "10.112.0.0/16", V6: "fd00:112::/48"}),
        ("fd00:112::/48", {V6: "fd00:112::/48"}),
    ],
)
def test_one_range_or_one_of_each_family(text: str, parsed: dict[object, str]) -> None:
    found = ranges.parse(text)
    assert {family: str(network) for family, network in found.items()} == parsed
    assert list(found) == [family for family in (V4, V6) if family in found], "IPv4 comes first"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not a range of addresses"),
        ("10.0.0.1/16", "has host bits set"),
        ("10.0.0.0/16,10.1.0.0/16", "has two ranges of IPv4; give one, or one of each family"),
        ("fd00::/48,fd01::/48", "has two ranges of IPv6"),
        ("10.0.0.0/16,", "'' is not a range of addresses"),
        ("fe80::/64", "is not a range that can be given to tasks"),
        ("ff00::/8", "is not a range that can be given to tasks"),
        ("127.0.0.0/8", "is not a range that can be given to tasks"),
    ],
)
def test_what_is_no_range(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ranges.parse(text)


@pytest.mark.parametrize("text", ["10.0.0.0/30", "fd00::/126", "10.0.0.0/16,fd00::/126"])
def test_a_range_of_services_has_room(text: str) -> None:
    with pytest.raises(ValueError, match="is too small: a range of services is a /"):
        ranges.services(text)


@pytest.mark.parametrize(
    ("cluster", "services", "why"),
    [
        ("10.112.0.0/16", "10.201.0.0/16", None),
        ("10.112.0.0/16,fd00:112::/48", "10.201.0.0/16,fd00:201::/112", None),
        ("fd00:112::/48", "fd00:201::/112", None),
        ("10.112.0.0/24", "10.201.0.0/16", "--cluster-range 10.112.0.0/24 is too small: each node gets a /24 of it"),
        ("fd00:112::/64", "fd00:201::/112", "--cluster-range fd00:112::/64 is too small: each node gets a /64 of it"),
        ("10.112.0.0/16", "10.112.128.0/17", "--service-range 10.112.128.0/17 overlaps --cluster-range 10.112.0.0/16"),
        ("fd00:112::/48", "fd00:112:0:1::/112", "--service-range fd00:112:0:1::/112 overlaps --cluster-range fd00:112"),
        (
            "10.112.0.0/16,fd00:112::/48",
            "10.201.0.0/16",
            "--service-range 10.201.0.0/16 has no range of IPv6, and --cluster-range 10.112.0.0/16,fd00:112::/48 has; ",
        ),
        ("10.112.0.0/16", "10.201.0.0/16,fd00:201::/112", "--cluster-range 10.112.0.0/16 has no range of IPv6"),
        ("fd00:112::/48", "10.201.0.0/16", "--service-range 10.201.0.0/16 has no range of IPv6"),
    ],
)
def test_what_fits_together(cluster: str, services: str, why: str | None) -> None:
    found = ranges.problem(ranges.parse(cluster), ranges.services(services), ranges.DEFAULT_SUBNET_PREFIXES)
    assert (found is None) == (why is None)
    assert found is None or found.startswith(why or "")


@pytest.mark.parametrize(("text", "family"), [("0", V4), ("31", V4), ("127", V6), ("x", V6), ("-1", V4), ("²", V4)])
def test_what_is_no_prefix_of_a_subnet(text: str, family: ranges.Family) -> None:
    with pytest.raises(ValueError, match="is not the prefix of a subnet"):
        ranges.subnet_prefix(text, family)


def test_a_prefix_of_a_subnet() -> None:
    assert (ranges.subnet_prefix("26", V4), ranges.subnet_prefix("80", V6)) == (26, 80)
