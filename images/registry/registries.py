"""The door to all registries: what pulls and pushes of one process share.

::

    async with registries.Registries(config.load()) as shared:
        image = await pull.pull(store, "registry.lan:5000/team/web:1", registries=shared)

Connections, tokens and the bounds on transfers at once live here, so an agent opens one and keeps it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from images.registry import auth, config, credentials, pace, repository, transport

if TYPE_CHECKING:
    from images.reference import Reference

_NO_CONFIG = config.Config()


class Transfers:
    """The bounds on transfers at once and on their bytes a second; doors of one program may share them."""

    def __init__(self, limits: config.Limits) -> None:
        self.limits = limits
        self.downloads = asyncio.Semaphore(limits.downloads)
        self.uploads = asyncio.Semaphore(limits.uploads)
        self.incoming = pace.Pace(limits.bandwidth)
        self.outgoing = pace.Pace(limits.bandwidth)


class Registries:
    """Use it as an async context manager, on one event loop."""

    def __init__(
        self,
        settings: config.Config = _NO_CONFIG,
        *,
        kept: credentials.DockerConfig | None = None,
        transfers: Transfers | None = None,
    ) -> None:
        """`transfers` are those of another door of this program, if they have the same limits."""
        self.config = settings
        self.kept = kept or credentials.DockerConfig()
        fits = transfers is not None and transfers.limits == settings.limits
        self.transfers = transfers if transfers is not None and fits else Transfers(settings.limits)
        self.http = transport.Transport(settings)
        self._authorizers: dict[str, auth.Authorizer] = {}

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.__aexit__()

    def sources(self, reference: Reference) -> tuple[repository.Repository, ...]:
        """Where to read the reference's repository: its registry's mirrors in order, then the registry itself."""
        mirrors = self.config.of(reference.registry).mirrors
        # A mirror is asked once: whatever is wrong with it, somebody else has the same.
        hurried = replace(self.config, retry=replace(self.config.retry, attempts=1))
        asked_first = [self._at(mirror.host, mirror.repository(reference.repository), hurried) for mirror in mirrors]
        return (*asked_first, self.upstream(reference))

    def upstream(self, reference: Reference) -> repository.Repository:
        """Where to write it."""
        return self._at(reference.registry, reference.repository, self.config)

    def authorizer(self, host: str) -> auth.Authorizer:
        if host not in self._authorizers:
            self._authorizers[host] = auth.Authorizer(host, self.http, self.config, self.kept)
        return self._authorizers[host]

    def _at(self, host: str, name: str, settings: config.Config) -> repository.Repository:
        return repository.Repository(host, name, http=self.http, authorizer=self.authorizer(host), settings=settings)
