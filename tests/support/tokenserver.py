"""A token service as docker-registry demands it: JSON Web Tokens signed with a key whose certificate it knows.

Signed with the openssl program, since the standard library cannot; ES256 (RFC 7518, 3.4), the certificate in `x5c`.
"""

import base64
import contextlib
import http.server
import json
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVICE = "tests' registry"
ISSUER = "tests"


@dataclass(slots=True, kw_only=True)
class TokenServer:
    """`users` may get in; `questions` are what was asked: the query or form, and the Authorization header."""

    certificate: Path
    key: Path
    users: dict[str, str]
    identity_tokens: dict[str, str] = field(default_factory=dict)
    anonymous: tuple[str, ...] = ()
    life_s: int = 300
    url: str = ""
    questions: list[tuple[dict[str, list[str]], str]] = field(default_factory=list)

    def section(self) -> dict[str, Any]:
        """The section `auth` of docker-registry's configuration."""
        return {
            "token": {
                "realm": self.url,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.certificate),
            }
        }

    def answer(self, query: dict[str, list[str]], authorization: str) -> dict[str, Any] | None:
        """The token, or None for somebody whom nobody knows."""
        self.questions.append((query, authorization))
        user = ""
        if "refresh_token" in query:
            user = self.identity_tokens.get(query["refresh_token"][0], "")
            if not user:
                return None
        elif authorization.startswith("Basic "):
            user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            if self.users.get(user) != password:
                return None
        scopes = [scope for entry in query.get("scope", []) for scope in entry.split()]
        return {"token": self._token(user, scopes), "expires_in": self.life_s}

    def _token(self, user: str, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = actions.split(",") if user else [word for word in actions.split(",") if word in self.anonymous]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        times = {"exp": now + self.life_s, "nbf": now - 10, "iat": now}
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "jti": str(time.monotonic_ns()),
            **times,
            "access": access,
        }
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(self._signature(signed.encode()))}"

    def _signature(self, data: bytes) -> bytes:
        """Of r and s, 32 bytes each, where openssl writes a DER sequence of two integers."""
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        der = subprocess.run(command, input=data, capture_output=True, timeout=30, check=True).stdout
        first = 4 + der[3]
        return _fixed(der[4:first]) + _fixed(der[first + 2 : first + 2 + der[first + 1]])


def _fixed(number: bytes) -> bytes:
    return number.lstrip(b"\0").rjust(32, b"\0")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def running(pair: tuple[Path, Path], users: dict[str, str], **fields: Any) -> Iterator[TokenServer]:
    """On a loopback port of its own, over plain HTTP."""
    made = TokenServer(certificate=pair[0], key=pair[1], users=users, **fields)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query))

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(urllib.parse.parse_qs(form))

        def _answer(self, query: dict[str, list[str]]) -> None:
            found = made.answer(query, self.headers.get("Authorization", ""))
            body = json.dumps(found or {}).encode()
            self.send_response(200 if found else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the standard library
            """The questions are kept; nothing is printed."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/token"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
