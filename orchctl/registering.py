"""Registries, for the verbs that speak to them: each call opens one event loop and the connections, and closes both.

`push` is for names that say a registry (`says_registry`); other names mean the cluster. The rule: `images.registry`
knows no command line, and its errors, which name the remedy, become ours in `stores.told`.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchctl import progressbars, stores

if TYPE_CHECKING:
    from images.image import Image
    from images.manifest import Platform
    from images.registry.registries import Registries
    from images.store import ImageStore

T = TypeVar("T")


def says_registry(name: str) -> bool:
    """Whether an image's name says where it is pushed to: `registry.lan:5000/web` does, `web` does not."""
    from images import reference

    return reference.names_registry(name)


def pull(
    store: "ImageStore", name: str, *, platform: str = "", all_platforms: bool = False, path: Path | None = None
) -> "Image":
    """The image, fetched into the store with progress on the screen; `path` is that of registries.yaml."""
    chosen = stores.platform(platform)
    with progressbars.shown() as bars:
        if not all_platforms and (image := _unchanged(store, name, chosen, path)):
            for layer in image.layers:
                bars.step(layer.digest, "exists", layer.size_bytes, layer.size_bytes)
            return image
        from images.registry import pull as pulling

        return _run(
            lambda shared: pulling.pull(
                store, name, registries=shared, progress=bars, platform=chosen, all_platforms=all_platforms
            ),
            path,
        )


def _unchanged(store: "ImageStore", name: str, platform: "Platform | None", path: Path | None) -> "Image | None":
    """The image, when a glance shows that nothing has come: what speaks to registries need not be imported then."""
    from images.registry import config, glance

    with stores.told():
        return glance.unchanged(store, name, settings=config.load(path), platform=platform)


def fetch(store: "ImageStore", name: str, platform: "Platform", *, path: Path | None = None) -> None:
    """The same for a build, which shows by itself how far it is, and tells of errors in its own words."""
    from images.registry import pull as pulling

    _open(lambda shared: pulling.pull(store, name, registries=shared, platform=platform), path)


def push(store: "ImageStore", name: str, *, platform: str = "", path: Path | None = None) -> str:
    """Send the image to the registry that its name says; the digest that it has there."""
    from images.registry import push as pushing

    chosen = stores.platform(platform)
    with progressbars.shown() as bars:
        return _run(lambda shared: pushing.push(store, name, registries=shared, progress=bars, platform=chosen), path)


def login(host: str, user: str, password: str, *, path: Path | None = None) -> str:
    """Try the credentials, and keep them when they are accepted; where they are kept."""
    from images.registry import credentials
    from images.registry import login as logging_in

    given = credentials.Credentials(user=user, password=password)
    return _run(lambda shared: logging_in.login(host, given, registries=shared), path)


def logout(host: str) -> bool:
    """Forget the credentials; False when there were none."""
    from images.registry import login as logging_in

    return _run(lambda shared: logging_in.logout(host, registries=shared), None, configured=False)


def _run(work: "Callable[[Registries], Awaitable[T]]", path: Path | None, *, configured: bool = True) -> T:
    with stores.told():
        return _open(work, path, configured=configured)


def _open(work: "Callable[[Registries], Awaitable[T]]", path: Path | None, *, configured: bool = True) -> T:
    import asyncio

    from images.registry import config
    from images.registry import registries as doors

    async def run() -> T:
        settings = config.load(path) if configured else config.Config()
        async with doors.Registries(settings) as shared:
            return await work(shared)

    return asyncio.run(run())
