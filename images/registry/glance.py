"""Whether a name still means what is here, asked with the standard library alone: one HEAD, and no more.

What really speaks to registries takes longer to import than most registries take to answer, and most pulls find nothing
new. Rules. Nothing is sent that anybody must not see: no credentials, and plain HTTP only where the whole way would
speak it too. Nothing is followed. And whatever is not exactly the answer that is hoped for is none: then the whole way
is gone, which has words for what is wrong.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING

from images import errors, manifest, reference
from images.registry import config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.image import Image
    from images.manifest import Platform
    from images.registry.config import Config
    from images.store import ImageStore

TIME_S = 5.0
"""For connecting, and for the answer as a whole."""


def unchanged(store: ImageStore, name: str, *, settings: Config, platform: Platform | None = None) -> Image | None:
    """The image of a tag that is here in full, when its registry says that nothing has changed; noted as used now."""
    ref = reference.parse(name)
    known = store.names().get(ref.tagged)
    if known is None or ref.digest is not None or not _may_be_asked(ref.registry, settings):
        return None
    wanted = platform or manifest.host_platform()
    try:
        if store.missing(known, platform=wanted) or _said(ref, settings) != known:
            return None
        with store.hold():
            image = store.resolve(known, platform=wanted)
            store.touch(known)
    except (OSError, http.client.HTTPException, errors.ImageError):
        return None
    return image if wanted.runs(image.platform) else None


def _may_be_asked(host: str, settings: Config) -> bool:
    """Not where the whole way would ask somebody else first: a mirror, a token service or a proxy."""
    if settings.of(host).mirrors or settings.token_realms(host):
        return False
    return config.is_loopback(host) or not urllib.request.getproxies()


def _said(ref: reference.Reference, settings: Config) -> str | None:
    """The digest that the registry says, if it answers as one does that lets everybody read."""
    connection = _connection(ref.registry, settings)
    with contextlib.closing(connection), _bounded(connection):
        path = f"/v2/{ref.repository}/manifests/{ref.tag or reference.DEFAULT_TAG}"
        connection.request("HEAD", path, headers={"Accept": manifest.ACCEPT})
        answer = connection.getresponse()
        return answer.getheader("Docker-Content-Digest") if answer.status == http.client.OK else None


def _connection(host: str, settings: Config) -> http.client.HTTPConnection:
    registry, server = settings.of(host), config.server_of(host)
    # On this machine itself either may be spoken; who speaks TLS does not answer plain HTTP with success.
    if registry.insecure or (config.is_loopback(host) and not registry.ca):
        return http.client.HTTPConnection(server, timeout=TIME_S)
    from images.registry import tls

    return http.client.HTTPSConnection(server, timeout=TIME_S, context=tls.context(host, registry))


@contextlib.contextmanager
def _bounded(connection: http.client.HTTPConnection) -> Iterator[None]:
    """The block ends in time, however slowly the answer trickles."""

    def cut() -> None:
        with contextlib.suppress(OSError):  # it has ended by itself
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(2 * TIME_S, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
