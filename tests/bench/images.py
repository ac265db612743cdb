"""Images beside the common tools: a layer of 200 MB unpacked beside umoci, archives taken in and written beside skopeo.

Everybody is called as people call it, start of the program included, and works on a tmpfs, so that no disk is measured.
The builder's and the registry's rows come into `cases` as functions of their own, each over the same folder.
"""

import contextlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.bench import peers
from tests.bench.measure import Case

ROUNDS = 5
LAYER_BYTES = 200 << 20
RATIO_MARK = 1.5
KINDS = {"docker-archive": "none", "oci-archive": "gzip"}
"""How the layers in an archive are compressed."""
ROOT = Path(__file__).parents[2]
COMPRESSORS = {"none": ["cat"], "gzip": ["gzip", "-6", "-n", "-c"], "zstd": ["zstd", "-3", "-q", "-c"]}
UNPACK = """
import pathlib, sys
from images import store, unpack
images = store.ImageStore(pathlib.Path(sys.argv[1]))
unpack.unpack(images, images.resolve("bench"))
"""


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """One image whose layer has about the sizes and the compressibility of a distribution's."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-", dir="/dev/shm") as name:
        world = World(Path(name))
        yield [*_unpacking(world), *_travels(world)]


def _unpacking(world: "World") -> Iterator[Case]:
    for form in ("gzip", "none", "zstd"):
        reads = form != "zstd" and shutil.which("umoci")
        yield Case(
            name=f"images.unpack_200MB_{form}",
            unit="s",
            ours=partial(world.unpack, form),
            peer=partial(world.umoci, form) if reads else None,
            peer_name="umoci raw unpack" if form != "zstd" else "umoci reads no zstd",
            rounds=ROUNDS,
            ratio_mark=RATIO_MARK,
        )


def _travels(world: "World") -> Iterator[Case]:
    """Archives in and out; the layers are as the form's tools write them."""
    ways = {"load": (world.load, world.skopeo_load), "save": (world.save, world.skopeo_save)}
    for way, (ours, theirs) in ways.items():
        for form in ("docker-archive", "oci-archive"):
            yield Case(
                name=f"images.{way}_{form}",
                unit="s",
                ours=partial(ours, form),
                peer=partial(theirs, form) if shutil.which("skopeo") else None,
                peer_name=f"skopeo copy {form}: oci:" if way == "load" else f"skopeo copy oci: {form}:",
                rounds=ROUNDS,
                ratio_mark=RATIO_MARK,
            )


class World:
    """The image in every form, and what each program does with it; every measurement begins with an empty target."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        plain = folder / "layer.tar"
        with plain.open("wb") as file:
            write_layer(file)
        for form, command in COMPRESSORS.items():
            packed = folder / f"layer-{form}"
            with plain.open("rb") as source, packed.open("wb") as target:
                subprocess.run(command, stdin=source, stdout=target, check=True, timeout=300)
            self._orchctl("import", str(packed), "--name", "bench", "--store", str(self._store(form)))
            packed.unlink()
            self._save(form, "oci-dir", self._layout(form))
        for form, kind in KINDS.items():
            self._save(kind, form, self._archive(form))
        plain.unlink()

    def unpack(self, form: str) -> float:
        shutil.rmtree(self._store(form) / "layers")
        return self._timed([sys.executable, "-c", UNPACK, str(self._store(form))])

    def umoci(self, form: str) -> float:
        with self._target() as target:
            image = f"{self._layout(form)}:{_label(self._layout(form))}"
            return self._timed(["umoci", "raw", "unpack", "--image", image, str(target)])

    def load(self, form: str) -> float:
        with self._target() as target:
            return self._timed(self._command("load", str(self._archive(form)), "--store", str(target)))

    def skopeo_load(self, form: str) -> float:
        with self._target() as target:
            return self._timed(_skopeo(f"{form}:{self._archive(form)}", f"oci:{target}:bench"))

    def save(self, form: str) -> float:
        with self._target() as target:
            options = (f"--format={form}", "-o", str(target), "--store", str(self._store(KINDS[form])))
            return self._timed(self._command("save", "bench", *options))

    def skopeo_save(self, form: str) -> float:
        layout = self._layout(KINDS[form])
        with self._target() as target:
            return self._timed(_skopeo(f"oci:{layout}:{_label(layout)}", f"{form}:{target}:bench:latest"))

    def _store(self, form: str) -> Path:
        return self._folder / f"store-{form}"

    def _layout(self, form: str) -> Path:
        return self._folder / f"layout-{form}"

    def _archive(self, form: str) -> Path:
        return self._folder / f"{form}.tar"

    @contextlib.contextmanager
    def _target(self) -> Iterator[Path]:
        target = self._folder / f"target-{next(self._numbers)}"
        try:
            yield target
        finally:
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def _save(self, kind: str, form: str, target: Path) -> None:
        self._orchctl("save", "bench", f"--format={form}", "-o", str(target), "--store", str(self._store(kind)))

    def _orchctl(self, *arguments: str) -> None:
        command = self._command(*arguments)
        subprocess.run(command, check=True, capture_output=True, env=_environment(), cwd=ROOT, timeout=300)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "orchctl", "image", *arguments]

    def _timed(self, command: Sequence[str]) -> float:
        with peers.milliseconds() as spent:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd=ROOT,
            )
            peers.await_success(process)
        return spent[0] / 1000


def write_layer(file: io.BufferedIOBase | io.BufferedWriter, size_bytes: int = LAYER_BYTES) -> None:
    """Files as a distribution has them: many small, few large; a third of each is noise."""
    dice = random.Random(20260101)
    words = b" ".join(bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(200_000))
    noise = dice.randbytes(8 << 20)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        written = number = 0
        while written < size_bytes:
            size = min(int(dice.lognormvariate(9.5, 1.8)), 24 << 20)
            place = dice.randrange(1 << 20)
            content = (words[place:] + words)[: size * 2 // 3] + noise[place : place + size // 3]
            info = tarfile.TarInfo(f"usr/lib/part{number % 97}/file{number}")
            info.size, info.mode, info.mtime = len(content), 0o644, 1_600_000_000
            tar.addfile(info, io.BytesIO(content))
            written += len(content)
            number += 1


def _skopeo(source: str, target: str) -> list[str]:
    return ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-oci-accept-uncompressed-layers", source, target]


def _label(layout: Path) -> str:
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    return str(entry["annotations"]["org.opencontainers.image.ref.name"])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/dev/shm"}
