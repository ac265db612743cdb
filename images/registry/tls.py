"""TLS contexts, and whether a server on this machine's loopback speaks TLS at all."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from images.registry import errors

if TYPE_CHECKING:
    from images.registry import config

_PROBE_TIMEOUT_S = 5.0


def context(host: str, registry: config.Registry) -> ssl.SSLContext:
    """What is believed of `host`, and what we show it. `BadConfiguration` when a file is no certificate."""
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if registry.ca:
            made.load_verify_locations(cafile=registry.ca)
        if registry.client_certificate:
            made.load_cert_chain(registry.client_certificate, registry.client_key, password=_no_password)
    except (OSError, ValueError) as error:
        files = ", ".join(str(path) for path in (registry.ca, registry.client_certificate, registry.client_key) if path)
        message = f"registry {host}: {files}: not certificates and a key in PEM form ({error}); repair the files"
        raise errors.BadConfiguration(message) from error
    return made


def _no_password() -> str:
    raise ValueError("the key has a passphrase; nobody is here to type it")


async def is_spoken(host: str, port: int) -> bool:
    """Whether somebody answers there in TLS, whoever it is. `Unreachable` when nobody answers."""
    import asyncio  # whoever wants a context alone has no loop

    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE  # nothing is said over this connection; the one that counts is checked
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=anybody)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError, TimeoutError):
        return False
    except OSError as error:
        # A loop that tried several addresses has an error without a number.
        reason = error.strerror or str(error)
        raise errors.Unreachable(f"registry {host}:{port}: {reason}; is it running?") from error
    writer.close()
    return True
