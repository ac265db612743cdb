"""Who may be asked for a token, and who may see credentials (CVE-2020-15157)."""

from __future__ import annotations

import pytest

from images.registry import config, realms
from images.registry.realms import Trust

ALLOWED = frozenset({"login.example", "login.example:8443"})


@pytest.mark.parametrize(
    ("registry", "realm", "trust"),
    [
        # The registry's own origin, however it is written.
        ("https://reg.example", "https://reg.example/token", Trust.CREDENTIALS),
        ("https://reg.example", "https://REG.example:443/token", Trust.CREDENTIALS),
        ("http://reg.example:5000", "http://reg.example:5000/token", Trust.CREDENTIALS),
        ("https://10.0.0.7", "https://10.0.0.7/token", Trust.CREDENTIALS),
        # Another port is another server.
        ("https://reg.example", "https://reg.example:8443/token", Trust.ANONYMOUS),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", Trust.ANONYMOUS),
        # Another host, unless it is allowed, with its port.
        ("https://reg.example", "https://evil.example/token", Trust.ANONYMOUS),
        ("https://reg.example", "https://reg.example.evil.example/token", Trust.ANONYMOUS),
        ("https://reg.example", "https://login.example/token", Trust.CREDENTIALS),
        ("https://reg.example", "https://login.example:8443/token", Trust.CREDENTIALS),
        ("https://reg.example", "https://login.example:9000/token", Trust.ANONYMOUS),
        # Never from TLS to plain HTTP; from plain HTTP to the same, not with credentials.
        ("https://reg.example", "http://reg.example/token", Trust.REFUSED),
        ("https://reg.example", "http://login.example/token", Trust.REFUSED),
        ("http://reg.example", "http://login.example:80/token", Trust.ANONYMOUS),
        ("http://reg.example", "https://login.example/token", Trust.CREDENTIALS),
        # Bare addresses of elsewhere, and what is no address of a server.
        ("https://reg.example", "https://169.254.169.254/", Trust.REFUSED),
        ("https://reg.example", "https://[::1]/", Trust.REFUSED),
        ("https://reg.example", "https://localhost:1234/", Trust.REFUSED),
        ("https://reg.example", "https://user:pw@reg.example/token", Trust.REFUSED),
        ("https://reg.example", "https://reg.example@evil.example/token", Trust.REFUSED),
        ("https://reg.example", "file:///etc/passwd", Trust.REFUSED),
        ("https://reg.example", "https://reg.example:99999/", Trust.REFUSED),
        ("https://reg.example", "//reg.example/token", Trust.REFUSED),
        # Names that no resolver takes, and those at the bounds that one does.
        ("https://reg.example", "https://a..b/token", Trust.REFUSED),
        ("https://reg.example", "https://.b/token", Trust.REFUSED),
        ("https://reg.example", f"https://{'a' * 64}.example/token", Trust.REFUSED),
        ("https://reg.example", f"https://{'a.' * 127}a/token", Trust.REFUSED),
        ("https://reg.example", "https://tök.example/token", Trust.REFUSED),
        ("https://reg.example", "https://a%2e%2eb/token", Trust.REFUSED),
        ("https://reg.example", "https://[::1%25eth0]/token", Trust.REFUSED),
        ("https://reg.example", f"https://{'a' * 63}.example/token", Trust.ANONYMOUS),
        ("https://reg.example", f"https://{'a.' * 126}a/token", Trust.ANONYMOUS),
        ("https://reg.example", "https://token_1.example./token", Trust.ANONYMOUS),
        ("https://reg.example", "", Trust.REFUSED),
    ],
)
def test_judge(registry: str, realm: str, trust: Trust) -> None:
    home = realms.origin(registry)
    assert home is not None
    assert realms.judge(realm, registry=home, allowed=ALLOWED) is trust


def test_docker_hub_has_a_token_service_of_its_own() -> None:
    home = realms.origin(f"https://{config.server_of('docker.io')}")
    assert home is not None
    allowed = config.Config().token_realms("docker.io")
    assert realms.judge("https://auth.docker.io/token", registry=home, allowed=allowed) is Trust.CREDENTIALS
    nobody = config.Config().token_realms("reg.example")
    assert realms.judge("https://auth.docker.io/token", registry=home, allowed=nobody) is Trust.ANONYMOUS
