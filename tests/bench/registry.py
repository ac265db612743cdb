"""Images from a registry: ten layers, and an image that is up to date, beside skopeo and Docker.

All ask Debian's docker-registry on this machine's loopback, over data that lies on a tmpfs, so what is measured is
asking, receiving, digesting and writing. Docker is asked over its own interface and unpacks as well, which ours does
when a container is started.
"""

import asyncio
import contextlib
import gzip
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from images import digest as digests
from images import image, manifest, rootfs
from images.registry import pull, push, registries
from images.store import ImageStore
from tests.bench import peers
from tests.bench.measure import Case
from tests.support import registry, swarm
from tests.unit.images import makers

LAYERS, LAYER_BYTES = 10, 8 << 20
ROUNDS = 7
MANY_ROUNDS = 30


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """One registry for ours and skopeo; a second one over the same data inside Docker's own network."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-", dir="/dev/shm")))
        server = stack.enter_context(registry.running(folder / "registry"))
        ours = stack.enter_context(Ours.ready(folder, server.address))
        skopeo = Skopeo(folder, server.address) if peers.installed("skopeo") else None
        docker = stack.enter_context(Docker.ready(folder)) if swarm.available() else None
        yield [
            Case(
                name="registry.pull_10_layers",
                unit="ms",
                ours=ours.pull,
                peer=skopeo.pull if skopeo else None,
                peer_name="skopeo copy",
                rounds=ROUNDS,
                ratio_mark=1.5,
            ),
            Case(
                name="registry.pull_10_layers",
                unit="ms",
                ours=ours.pull,
                peer=docker.pull if docker else None,
                peer_name="docker's API, with unpacking",
                rounds=ROUNDS,
                ratio_mark=1.5,
            ),
            Case(
                name="registry.pull_up_to_date",
                unit="ms",
                ours=ours.pull_again,
                peer=docker.pull_again if docker else None,
                peer_name="docker's API",
                rounds=MANY_ROUNDS,
                ratio_mark=1,
            ),
            Case(
                name="registry.pull_up_to_date_command",
                unit="ms",
                ours=ours.command_again,
                peer=skopeo.pull_again if skopeo else None,
                peer_name="skopeo copy; most of ours is imports",
                rounds=ROUNDS,
            ),
            Case(
                name="registry.push_10_layers",
                unit="ms",
                ours=ours.push,
                peer=skopeo.push if skopeo else None,
                peer_name="skopeo copy",
                rounds=ROUNDS,
                ratio_mark=1.5,
            ),
        ]


class Ours:
    """The client as an agent uses it: connections stay open from one pull to the next."""

    def __init__(self, folder: Path, address: str, runner: asyncio.Runner, shared: registries.Registries) -> None:
        self._folder = folder
        self._address = address
        self._runner = runner
        self._shared = shared
        self._numbers = itertools.count()
        self._source = ImageStore(folder / "source")
        self._kept = ImageStore(folder / "kept")

    @classmethod
    @contextlib.contextmanager
    def ready(cls, folder: Path, address: str) -> "Iterator[Ours]":
        with asyncio.Runner() as runner:
            shared = registries.Registries()
            runner.run(shared.__aenter__())
            try:
                ours = cls(folder, address, runner, shared)
                made = make(ours._source)
                runner.run(push.push(ours._source, made.digest, f"{address}/bench:1", registries=shared))
                runner.run(pull.pull(ours._kept, f"{address}/bench:1", registries=shared))
                ours._source.tag(f"{address}/bench:1", made.digest)
                yield ours
            finally:
                runner.run(shared.__aexit__())

    def pull(self) -> float:
        folder = self._folder / f"store{next(self._numbers)}"
        store = ImageStore(folder)
        with peers.milliseconds() as spent:
            self._runner.run(pull.pull(store, f"{self._address}/bench:1", registries=self._shared))
        shutil.rmtree(folder)
        return spent[0]

    def pull_again(self) -> float:
        with peers.milliseconds() as spent:
            self._runner.run(pull.pull(self._kept, f"{self._address}/bench:1", registries=self._shared))
        return spent[0]

    def command_again(self) -> float:
        """As a person does it, with the start of the program."""
        store = f"--store={self._folder}/kept"
        command = [sys.executable, "-m", "orchctl", "image", "pull", store, f"{self._address}/bench:1"]
        with peers.milliseconds() as spent:
            call(command, {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
        return spent[0]

    def push(self) -> float:
        """Each time to another registry, so that there is nothing to mount."""
        with registry.running(self._folder / f"target{next(self._numbers)}") as target:
            name = f"{target.address}/bench:1"
            with peers.milliseconds() as spent:
                self._runner.run(push.push(self._source, f"{self._address}/bench:1", name, registries=self._shared))
        shutil.rmtree(target.log.parent)
        return spent[0]


class Skopeo:
    """Between the registry and an OCI layout in a folder."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._image = f"docker://{address}/bench:1"
        self._numbers = itertools.count()

    def pull(self) -> float:
        target = self._folder / f"layout{next(self._numbers)}"
        spent = self._copy("--src-tls-verify=false", self._image, f"oci:{target}:1")
        shutil.rmtree(target)
        return spent

    def pull_again(self) -> float:
        kept = self._folder / "layout"
        if not kept.exists():
            self._copy("--src-tls-verify=false", self._image, f"oci:{kept}:1")
        return self._copy("--src-tls-verify=false", self._image, f"oci:{kept}:1")

    def push(self) -> float:
        self.pull_again()
        with registry.running(self._folder / f"skopeo{next(self._numbers)}") as target:
            spent = self._copy(
                "--dest-tls-verify=false", f"oci:{self._folder}/layout:1", f"docker://{target.address}/bench:1"
            )
        shutil.rmtree(target.log.parent)
        return spent

    def _copy(self, *arguments: str) -> float:
        # Its cache of what is where would be this user's own.
        environment = {**os.environ, "XDG_DATA_HOME": str(self._folder / "cache")}
        with peers.milliseconds() as spent:
            call(["skopeo", "--insecure-policy", "copy", "--quiet", *arguments], environment)
        return spent[0]


class Docker:
    """A daemon in namespaces of its own, and a registry beside it in there."""

    def __init__(self, docker: swarm.Swarm, address: str) -> None:
        self._docker = docker
        self._name = f"{address}/bench"

    @classmethod
    @contextlib.contextmanager
    def ready(cls, folder: Path) -> "Iterator[Docker]":
        with swarm.running() as docker:
            inside = ["nsenter", "--net", "--target", str(docker.daemon_pid)]
            data = folder / "registry/data"
            with registry.running(folder / "inside", data=data, inside=inside) as server:
                yield cls(docker, server.address)

    def pull(self) -> float:
        spent = self._pull()
        self._docker.ask("DELETE", f"/images/{self._name}:1?force=1")
        return spent

    def pull_again(self) -> float:
        self._pull()
        return self._pull()

    def _pull(self) -> float:
        with peers.milliseconds() as spent:
            said = self._docker.told("POST", f"/images/create?fromImage={self._name}&tag=1")
        assert b"errorDetail" not in said, said[-500:]
        return spent[0]


def call(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Execute a command to its successful end; what it tells people is not shown."""
    quiet = subprocess.DEVNULL
    peers.await_success(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment))


def make(store: ImageStore) -> image.Image:
    """Layers of random bytes, compressed as most are: no byte of one is in another."""
    lots = random.Random(1)
    entries, diff_ids = [], []
    for number in range(LAYERS):
        layer = makers.archive(makers.member(f"file{number}", content=lots.randbytes(LAYER_BYTES)))
        data = gzip.compress(layer, compresslevel=1, mtime=0)
        entries.append(
            manifest.Descriptor(
                media_type=f"{manifest.OCI_LAYER}+gzip", digest=store.put_bytes(data), size_bytes=len(data)
            )
        )
        diff_ids.append(digests.of_bytes(layer))
    return rootfs.add_image(
        store, tuple(entries), tuple(diff_ids), image.Config(), None, platform=manifest.host_platform()
    )
