"""Names of scopes, and properties that annotations ask for. What systemd makes of them: tests/vm/test_systemd.py."""

from pathlib import Path
from typing import Any

import pytest

from runtime import cgrouppath, errors, privilege, systemd


@pytest.mark.parametrize(
    ("path", "unit", "above"),
    [
        ("system.slice:docker:1f3c", "docker-1f3c.scope", "system.slice"),
        ("machine.slice:libpod:1f3c", "libpod-1f3c.scope", "machine.slice"),
        ("a-b.slice::x", "x.scope", "a-b.slice"),
        (":docker:1f3c", "docker-1f3c.scope", "system.slice"),
        ("", "orchrun-web.scope", "system.slice"),
    ],
)
def test_the_scope_of_a_path(path: str, unit: str, above: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As runc names them; no slice is the one of who asks."""
    monkeypatch.setattr(privilege, "is_host_root", lambda: True)
    assert systemd.scope(path, "web") == systemd.Scope(slice=above, unit=unit)
    monkeypatch.setattr(privilege, "is_host_root", lambda: False)
    default = path.partition(":")[0] or "user.slice"
    assert systemd.scope(path, "web") == systemd.Scope(slice=default, unit=unit)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a/b", "is a path, and --systemd-cgroup needs slice:prefix:name"),
        ("a/b", "is a path"),
        ("a:b", "is a path"),
        ("system:docker:x", "'system' is no name of a slice"),
        ("system.slice:docker:a/b", "'docker-a/b.scope' is no name of a scope"),
        ("system.slice:docker:" + "x" * 250, "is no name of a scope"),
    ],
)
def test_what_is_no_scope(path: str, words: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        systemd.scope(path, "web")
    assert caught.value.message.startswith("linux.cgroupsPath: ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("above", "path"),
    [
        ("system.slice", "/system.slice/x.scope/container"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/x.scope/container"),
        ("-.slice", "/x.scope/container"),
    ],
)
def test_where_a_scope_is(above: str, path: str) -> None:
    """A dash is a step down (systemd.slice(5)); the root has none."""
    assert systemd.expected(systemd.Scope(slice=above, unit="x.scope")) == path


def test_configurations_are_left_to_the_parser() -> None:
    """A path of another type is its affair; else the path is where `delete` looks."""
    for wrong in ({"linux": [1]}, {"linux": {"cgroupsPath": 7}}, {"linux": "x"}):
        with pytest.raises(errors.InvalidSpec):
            systemd.settle({"ociVersion": "1.2.0", **wrong}, "web")
    config, _ = systemd.settle({"linux": {"cgroupsPath": "a.slice:b:c", "x": 1}}, "web")
    assert config == {"linux": {"cgroupsPath": "/a.slice/b-c.scope/container", "x": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("uint64 10000000", ("t", 10_000_000)),
        ("15", ("i", 15)),
        ("-1", ("i", -1)),
        ("byte 7", ("y", 7)),
        ("true", ("b", True)),
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ('"two words"', ("s", "two words")),
        ("''", ("s", "")),
    ],
)
def test_properties_of_annotations(text: str, value: tuple[str, Any]) -> None:
    """As GVariant writes them (its text format)."""
    asked = {"org.systemd.property.X": text, "org.other": "1"}
    assert systemd.properties(asked) == {"X": value}


@pytest.mark.parametrize("text", ["", "x", "[1, 2]", "uint9 1", "'a'b'", "1.5", "uint8 256", "uint64 -1"])
def test_properties_that_are_none(text: str) -> None:
    """Before systemd hears of anything."""
    with pytest.raises(errors.InvalidSpec, match=r"annotations\.org\.systemd\.property\.X: "):
        systemd.properties({"org.systemd.property.X": text})


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
def test_where_systemd_does_not_run() -> None:
    """The flag, the reason and the remedy."""
    wanted = systemd.Scope(slice="system.slice", unit="x.scope")
    with pytest.raises(errors.InvalidSpec, match=r"--systemd-cgroup: systemd does not run .* use --cgroup-manager"):
        systemd.enter(wanted, "x", {})


def test_scopes_by_their_paths() -> None:
    """The container's group is one in the scope; others are not systemd's."""
    assert cgrouppath.scope("/system.slice/x.scope/container") == "/system.slice/x.scope"
    assert cgrouppath.scope("/orch/x") == cgrouppath.scope("/x.scope/other") == cgrouppath.scope("/a/container") == ""
