"""TLS for gRPC, on both sides: the one place where a folder's content becomes credentials.

Three rules. TLS 1.3 and nothing older. A server asks everybody for a certificate. And who dials a control plane asks
for the name that only instances have, whatever address it dialed: an address proves nothing, the certificate does.
"""

import os

# Read once by gRPC's core. TLS 1.3 has suites of its own, which no setting changes; of TLS 1.2 this leaves those for
# RSA certificates alone. A cluster has none, so that no handshake of TLS 1.2 finds a suite. A test tries it.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"

from collections.abc import Callable

import grpc

from trust.core.identity import SERVER_NAME
from trust.folder import Material

CHANNEL_OPTIONS: tuple[tuple[str, str], ...] = (("grpc.ssl_target_name_override", SERVER_NAME),)
"""For every channel with `channel` credentials to a control plane."""


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


def _configuration(own: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(own.key, own.chain)], root_certificates=own.roots)
