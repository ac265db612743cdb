"""Which etcd will do, by what it says of itself."""

import pytest

from controlplane import member


@pytest.mark.parametrize("version", ["3.4.20", "3.4.23", "3.5.3", "3.5.16", "3.6.0"])
def test_it_will_do(version: str) -> None:
    assert member.problem(f"etcd Version: {version}\nGit SHA: Not provided\n") == ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("etcd Version: 3.3.25\n", "older than 3.4.20"),
        ("etcd Version: 3.4.9\n", "older than 3.4.20"),
        ("etcd Version: 3.5.0\n", "loses data; install 3.5.3"),
        ("etcd Version: 3.5.2\n", "loses data"),
        ("", "does not say which version"),
    ],
)
def test_it_will_not_and_why(said: str, why: str) -> None:
    assert why in member.problem(said)
