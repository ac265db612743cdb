"""The forms of `linux.cgroupsPath`."""

import pytest

from runtime import cgrouppath


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("/a/b", "/a/b"),
        ("//a//b/", "/a/b"),
        ("a/b", "/orch/a/b"),
        ("./a", "/orch/a"),
        ("/a:b:c", "/a:b:c"),
        ("a:b", "/orch/a:b"),
        ("", ""),
    ],
)
def test_where_a_group_is(path: str, absolute: str) -> None:
    """Relative paths are below the parent of all groups that nobody gave another place."""
    assert cgrouppath.refusal(path) == "" or not path
    assert cgrouppath.absolute(path) == absolute


@pytest.mark.parametrize(
    "path", ["/", "//", "/.", "/orch", ".", "..", "/a/..", "a/../../b", "s.slice:docker:x", ":a:b"]
)
def test_what_is_no_group_of_the_containers_own(path: str) -> None:
    assert cgrouppath.refusal(path)
