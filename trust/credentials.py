"""TLS for gRPC, on both sides: the one place where a folder's content becomes credentials.

Three rules. TLS 1.3 and nothing older. A server asks everybody for a certificate. And who dials asks for the name that
only the role has which it dials, whatever the address: an address proves nothing, the certificate does.
"""

import os

# Read once by gRPC's core. TLS 1.3 has suites of its own, which no setting changes; of TLS 1.2 this leaves those for
# RSA certificates alone. A cluster has none, so that no handshake of TLS 1.2 finds a suite. A test tries it.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"

import functools
from collections.abc import Callable, Iterable, Mapping

import grpc

from trust.core import certificate
from trust.core.identity import SERVER_NAMES, Malformed, Role
from trust.folder import Material


def channel_options(role: Role) -> tuple[tuple[str, str], ...]:
    """For every channel with `channel` credentials: who has to answer."""
    return (("grpc.ssl_target_name_override", SERVER_NAMES[role]),)


CHANNEL_OPTIONS = channel_options(Role.CONTROLPLANE)
"""Of those to a control plane."""


def channel(own: Material) -> grpc.ChannelCredentials:
    """Of who dials."""
    return grpc.ssl_channel_credentials(own.roots, own.key, own.chain)


def server(current: Callable[[], Material]) -> grpc.ServerCredentials:
    """Of who is dialed. `current` is asked at every handshake, so that a new certificate needs no restart; connections
    that stand are left alone.
    """
    used = current()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        newest = current()
        if newest is used:
            return None
        used = newest
        return _configuration(newest)

    # The stubs do not know that None means: as before.
    return grpc.dynamic_ssl_server_credentials(_configuration(used), fetch, require_client_authentication=True)  # type: ignore[arg-type]


def caller(said: Mapping[str, Iterable[bytes]]) -> certificate.Facts:
    """Whose certificate a call was made with, of what gRPC says of its connection. Raises Malformed when it shows none
    over TLS 1.3, or none of a member.
    """
    versions, certificates = said.get("ssl_tls_version", ()), said.get("x509_pem_cert", ())
    if list(versions) != [_TLS_VERSION] or not certificates:
        raise Malformed("the connection shows no certificate over TLS 1.3")
    facts = _read(bytes(next(iter(certificates))))
    _ = facts.identity
    return facts


_read = functools.lru_cache(maxsize=4096)(certificate.read)
"""A connection shows the same certificate at every call."""

_TLS_VERSION = b"TLSv1.3"


def _configuration(own: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(own.key, own.chain)], root_certificates=own.roots)
