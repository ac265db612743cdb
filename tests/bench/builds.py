"""Building beside buildah: a tree that has not changed, and ten steps without any cache. Both as people call them.

buildah runs commands with its lightest isolation (`chroot`), ours in namespaces with a system call filter. Its storage
is the kernel's overlay, as ours is.
"""

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from images import export, image
from tests.bench import measure, peers
from tests.support import building

ROUNDS_CACHED, ROUNDS_UNCACHED = 11, 5
FILES, FILE_BYTES = 200, 4096
DOCKERFILE = """\
FROM localhost/base
WORKDIR /app
COPY src /app/src
RUN find src -type f | wc -l > count
RUN cp -r src copy
RUN tar c src > src.tar
RUN rm -r copy
ENV STAGE=last
RUN mkdir -p a/b/c && echo $STAGE > a/b/c/d
RUN chmod -R g-w src
RUN --mount=type=cache,target=/cache cp src.tar /cache/
CMD ["/bin/sh"]
"""


@contextlib.contextmanager
def cases() -> Iterator[list[measure.Case]]:
    """Both tools with the same base image and the same context."""
    with tempfile.TemporaryDirectory(prefix="pytest-bench-", dir="/tmp") as name:
        folder = Path(name)
        bench = building.Bench(folder / "ours")
        base = bench.add_base()
        context = _context(folder)
        buildah = _buildah(folder, bench, base) if shutil.which("buildah") else None
        ours = [sys.executable, "-m", "orchctl", "image", "build", "--store", str(bench.store.root), "-q", "-t", "out"]
        ours += ["--state", "/run/orch/builds"]
        yield [_cached(ours, buildah, context), _uncached(ours, buildah, context)]


def _context(folder: Path) -> Path:
    context = folder / "context"
    for number in range(FILES):
        path = context / f"src/{number % 10}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number % 256]) * FILE_BYTES)
    (context / "Dockerfile").write_text(DOCKERFILE)
    return context


def _buildah(folder: Path, bench: building.Bench, base: image.Image) -> list[str]:
    storage = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "overlay")
    with (folder / "base.tar").open("wb") as file:
        export.export_archive(bench.store, base, file, "docker")
    peers.call(["buildah", *storage, "pull", "-q", f"docker-archive:{folder}/base.tar"])
    return ["buildah", *storage, "bud", "-q", "--isolation", "chroot", "--pull-never", "-t", "out"]


def _cached(ours: list[str], buildah: list[str] | None, context: Path) -> measure.Case:
    peer = None if buildah is None else [*buildah, "--layers", str(context)]
    for command in (*ours, str(context)), peer:
        if command is not None:
            peers.call(command)  # what is then known
    return measure.Case(
        name="build, nothing changed",
        unit="s",
        ours=lambda: _seconds([*ours, str(context)]),
        peer=None if peer is None else lambda: _seconds(peer),
        peer_name="buildah bud --layers",
        rounds=ROUNDS_CACHED,
        ratio_mark=1.0,
    )


def _uncached(ours: list[str], buildah: list[str] | None, context: Path) -> measure.Case:
    return measure.Case(
        name="build of ten steps, no cache",
        unit="s",
        ours=lambda: _seconds([*ours, "--no-cache", str(context)]),
        peer=None if buildah is None else lambda: _seconds([*buildah, "--layers", "--no-cache", str(context)]),
        peer_name="buildah bud --layers --no-cache",
        rounds=ROUNDS_UNCACHED,
        ratio_mark=1.5,
    )


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    peers.call(command)
    return time.perf_counter() - began
