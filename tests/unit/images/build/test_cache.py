"""What builds remember, while others open the same store, prune it and forget."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING

from images.build import cache
from images.image import EPOCH
from images.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS = 150


def test_a_step_is_remembered_whoever_sweeps_and_forgets_meanwhile(tmp_path: Path) -> None:
    """Nobody fails, and an entry is there whole or not at all."""
    store = ImageStore(tmp_path)
    made = cache.Made(layer=None, created=EPOCH)
    done = threading.Event()

    def remember(number: int) -> None:
        known = cache.Cache(store=store)
        for each in range(_ROUNDS):
            known.keep(f"{number}-{each % 7}", made)
            assert known.find(f"{number}-{each % 7}") in {made, None}

    def sweep() -> None:
        while not done.is_set():
            ImageStore(tmp_path)

    def forget() -> None:
        while not done.is_set():
            cache.Cache(store=store).forget_lost()
            cache.Cache(store=store).clear()

    with futures.ThreadPoolExecutor(4) as pool:
        others = [pool.submit(sweep), pool.submit(forget)]
        builds = [pool.submit(remember, number) for number in range(2)]
        futures.wait(builds)
        done.set()
        for each in (*builds, *others):
            each.result()
    assert list(store.tmp.iterdir()) == []


def test_a_mounted_cache_is_the_one_that_has_the_name(tmp_path: Path) -> None:
    """One that is cleared between being found and being locked is made anew, and never lost while it is used."""
    known = cache.Cache(store=ImageStore(tmp_path))
    done = threading.Event()

    def use() -> None:
        for _ in range(_ROUNDS):
            with known.mount("c", sharing="locked", fill=lambda folder: (folder / "filled").touch()) as folder:
                (folder / "x").touch()
                assert (folder / "filled").exists()
                (folder / "x").unlink()

    def clear() -> None:
        while not done.is_set():
            known.clear()

    with futures.ThreadPoolExecutor(3) as pool:
        clears = pool.submit(clear)
        uses = [pool.submit(use) for _ in range(2)]
        futures.wait(uses)
        done.set()
        for each in (*uses, clears):
            each.result()


def test_what_is_no_entry_is_forgotten(tmp_path: Path) -> None:
    known = cache.Cache(store=ImageStore(tmp_path))
    known.keep("k", cache.Made(layer=None, created=EPOCH))
    path = tmp_path / "build/steps/k"
    layer = '{"digest": "x", "diff_id": "x", "size_bytes": 1, "media_type": "x"}'
    for text in ("", "[]", "{}", "7", '{"layer": [], "created": 1}', '{"layer": {"a": 1}, "created": ""}', "\0",
                 f'{{"layer": {layer}}}', '{"layer": null, "created": null}'):  # fmt: skip
        path.write_text(text)
        assert known.find("k") is None, text
        assert not path.exists(), text


def test_what_nobody_asked_for_is_forgotten_first(tmp_path: Path) -> None:
    """Looking through what there is, as a prune does, is no asking."""
    known = cache.Cache(store=ImageStore(tmp_path))
    for name in ("a", "b"):
        known.keep(name, cache.Made(layer=None, created=EPOCH))
    paths = [tmp_path / "build/steps" / name for name in ("a", "b")]
    before = [path.stat().st_mtime_ns for path in paths]
    known.forget_lost()
    assert [path.stat().st_mtime_ns for path in paths] == before
    known.find("a")
    assert paths[0].stat().st_mtime_ns > before[0]
