"""What is built again, and what is not: the key of a step is all that decides over its result, and nothing else."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from concurrent import futures
from typing import TYPE_CHECKING

import pytest

from images import errors, locks
from images.build import builder, cache, context, workshop
from images.store import ImageStore
from tests.support import waiting

if TYPE_CHECKING:
    from pathlib import Path

    from images.image import Image
    from tests.support.building import Bench

pytestmark = pytest.mark.root
FROM = "FROM localhost/base\n"
TEXT = f"{FROM}ARG V=1\nWORKDIR /w\nCOPY . .\nRUN cat a > b && echo $V >> b\nENV X=1\nRUN env > e\n"


def test_an_unchanged_tree_takes_no_work(bench: Bench) -> None:
    """And gives the very same image, from another opening of the store as well."""
    context = bench.context({"Dockerfile": TEXT, "a": "one"})
    first = bench.build(context)
    assert len(bench.last.made) == 4
    bench.store = ImageStore(bench.store.root)
    assert bench.build(context).digest == first.digest
    assert bench.last.made == []
    assert len(bench.last.cached) == 4
    assert not bench.area.exists() or not list(bench.area.iterdir()), "no container was prepared for"


def test_times_decide_nothing_and_bytes_modes_and_names_do(bench: Bench) -> None:
    context = bench.context({"Dockerfile": TEXT, "a": "one", "c": ""})
    bench.build(context)
    os.utime(context / "a", (1, 1))
    bench.build(context)
    assert bench.last.made == []
    for change in (
        lambda: (context / "a").write_text("two"),
        lambda: (context / "c").chmod(0o600),
        lambda: (context / "c").rename(context / "d"),
        lambda: (context / "l").symlink_to("a"),
    ):
        change()
        bench.build(context)
        assert bench.last.cached == ["WORKDIR /w"], bench.last.cached
        assert len(bench.last.made) == 3


def test_what_is_ignored_decides_nothing(bench: Bench) -> None:
    files = {
        "Dockerfile": f"{FROM}COPY . /c\n",
        ".dockerignore": "*.log\nDockerfile\n.dockerignore\n",
        "a": "one",
        "x.log": "1",
    }
    context = bench.context(files)
    assert "c/x.log" not in bench.tree(bench.build(context))
    (context / "x.log").write_text("2")
    (context / "Dockerfile").write_text(f"# another\n{FROM}COPY . /c\n")
    bench.build(context)
    assert bench.last.made == []


def test_arguments_and_variables_are_part_of_a_command(bench: Bench) -> None:
    context = bench.context({"Dockerfile": TEXT, "a": "one"})
    bench.build(context)
    image = bench.build(context, build_args={"V": "2"})
    assert bench.last.made == ["RUN cat a > b && echo $V >> b", "RUN env > e"]
    assert bench.read(image, "/w/b") == "one2\n"


def test_what_only_writes_something_down_makes_nothing_anew(bench: Bench) -> None:
    bench.build(f"{FROM}RUN echo 1 > /1\nRUN echo 2 > /2\n")
    image = bench.build(f"{FROM}LABEL a=b\nRUN echo 1 > /1\nEXPOSE 80\nCMD x\nRUN echo 2 > /2\n")
    assert bench.last.made == []
    assert bench.config(image)["config"]["Labels"] == {"a": "b"}


def test_a_stage_that_comes_out_as_before_changes_nothing_after_it(bench: Bench) -> None:
    """What is copied from a stage is known by its content when its layers are new."""
    text = "FROM localhost/base AS a\nCOPY a /a\nRUN mkdir /out && head -c 1 /a > /out/x\n{}COPY --from=a /out /o\n"
    context = bench.context({"Dockerfile": text.format(FROM), "a": "one"})
    bench.build(context)
    (context / "a").write_text("other")
    bench.build(context)
    assert bench.last.cached == ["COPY --from=a /out /o"]


def test_a_linked_copy_does_not_depend_on_what_is_below(bench: Bench) -> None:
    files = {"a": "one"}
    bench.build(f"{FROM}RUN echo 1 > /1\nCOPY --link a /d/\n", files)
    image = bench.build(f"{FROM}RUN echo 2 > /1\nCOPY --link a /d/\n", files)
    assert bench.last.cached == ["COPY --link a /d/"]
    assert bench.read(image, "/1") == "2\n"
    assert bench.read(image, "/d/a") == "one"


def test_a_linked_copy_gives_its_files_to_the_owner_that_its_own_base_knows(bench: Bench) -> None:
    """The layers below are no part of its key, so what they say of a name must be."""
    copy = "COPY --link --chown=app {} /x /x\n"
    for source, files in (("--from=0", None), ("", {"x": "one"})):
        text = "FROM localhost/base AS from\nRUN echo one > /x\nFROM localhost/base\n{}" + copy.format(source)
        first = bench.build(text.format(""), files)
        other = bench.build(text.format("RUN echo app:x:2000:29::/:/bin/sh > /etc/passwd\n"), files)
        assert (bench.tree(first)["x"].uid, bench.tree(first)["x"].gid) == (1000, 1001)
        assert (bench.tree(other)["x"].uid, bench.tree(other)["x"].gid) == (2000, 29)


def test_without_cache_every_step_is_carried_out(bench: Bench) -> None:
    bench.build(f"{FROM}RUN date +%s%N > /t\n")
    image = bench.build(f"{FROM}RUN date +%s%N > /t\n", use_cache=False)
    assert bench.last.made == ["RUN date +%s%N > /t"]
    assert bench.build(f"{FROM}RUN date +%s%N > /t\n").digest == image.digest, "what came last is what is known"


def test_entries_whose_layers_are_gone_are_forgotten(bench: Bench) -> None:
    """A prune takes the layers that no image has; then the steps are carried out again."""
    context = bench.context({"Dockerfile": TEXT, "a": "one"})
    bench.build(context)
    bench.store.prune()
    assert cache.Cache(store=bench.store).forget_lost() == 4
    image = bench.build(context, names=("kept",))
    assert len(bench.last.made) == 4
    bench.store.prune()
    assert cache.Cache(store=bench.store).forget_lost() == 0
    assert bench.build(context).digest == image.digest
    assert bench.last.made == []


def test_everything_can_be_forgotten_but_what_is_in_use(bench: Bench) -> None:
    known = cache.Cache(store=bench.store)
    text = f"{FROM}RUN --mount=type=cache,id=a,target=/c touch /c/x\n"
    bench.build(text)
    with known.mount("b", sharing="shared") as used:
        known.clear()
        assert used.is_dir()
        assert list((bench.store.root / "build/mounts").glob("*/*")) == [used]
    bench.build(text)
    assert len(bench.last.made) == 1


def test_folders_of_a_cache_outlive_builds_and_reach_no_layer(bench: Bench) -> None:
    text = FROM + "RUN --mount=type=cache,id=c,target=/c echo {0} >> /c/log && cp /c/log /log\n"
    first = bench.build(text.format(1))
    second = bench.build(text.format(2))
    assert bench.read(first, "/log") == "1\n"
    assert bench.read(second, "/log") == "1\n2\n"
    assert "c" not in bench.tree(second)


@pytest.mark.parametrize(
    "step",
    ["COPY a /o", "RUN --mount=type=bind,target=/c cp /c/a /o", "RUN --mount=type=bind,source=a,target=/c cp /c /o"],
)
def test_what_changes_while_it_is_copied_is_not_remembered_under_what_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """An editor saves between the look at a file and its copy; later somebody takes that back."""
    folder = bench.context({"Dockerfile": f"{FROM}{step}\n", "a": "old"})
    find = cache.Cache.find

    def save_meanwhile(known: cache.Cache, key: str) -> cache.Made | None:
        (folder / "a").write_text("new")
        return find(known, key)

    with monkeypatch.context() as patch:
        patch.setattr(cache.Cache, "find", save_meanwhile)
        assert bench.read(bench.build(folder), "/o") == "new"
    assert bench.last.warnings == [f"{step}: files changed while they were copied; build again"]
    assert bench.read(bench.build(folder), "/o") == "new"
    (folder / "a").write_text("old")
    assert bench.read(bench.build(folder), "/o") == "old"


def test_a_cache_that_could_not_be_filled_is_not_there(bench: Bench) -> None:
    """The next build fails in the same way, and what is mended then is filled."""
    text = "FROM localhost/base AS from\nRUN {}\nFROM localhost/base\n"
    mount = "--mount=type=cache,id=c,from=from,source=/d,target=/c,uid=1000,mode=0700"
    text += f"RUN {mount} stat -c '%u %a' /c > /o; ls /c > /l\n"
    for _ in range(2):
        with pytest.raises(errors.NotFound, match="no file '/d'"):
            bench.build(text.format("true"))
    image = bench.build(text.format("mkdir /d && touch /d/x"))
    assert (bench.read(image, "/o"), bench.read(image, "/l")) == ("1000 700\n", "x\n")


def test_nobody_sees_a_cache_that_is_being_filled(bench: Bench) -> None:
    """Of two that fill it at once the first to be done counts, and the other one takes that."""
    known = cache.Cache(store=bench.store)
    began, go_on = threading.Event(), threading.Event()

    def slowly(folder: Path) -> None:
        (folder / "half").touch()
        began.set()
        assert go_on.wait(30)

    def use() -> list[str]:
        with known.mount("c", sharing="shared", fill=slowly) as folder:
            return sorted(path.name for path in folder.iterdir())

    with futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(use)
        assert began.wait(30)
        with known.mount("c", sharing="locked", fill=lambda folder: (folder / "whole").touch()) as mine:
            assert [path.name for path in mine.iterdir()] == ["whole"]
        go_on.set()
        assert slow.result(30) == ["whole"]
    assert not list(bench.store.tmp.iterdir())


def test_a_cache_that_is_cleared_while_somebody_waits_for_it_is_made_anew(bench: Bench) -> None:
    known = cache.Cache(store=bench.store)
    waits, go_on = threading.Event(), threading.Event()

    def check() -> None:
        waits.set()

    def use() -> str:
        with known.mount("c", sharing="locked", check=check) as folder:
            assert go_on.wait(30)
            return str(folder.is_dir() and not list(folder.iterdir()))

    with futures.ThreadPoolExecutor(1) as pool:
        with known.mount("c", sharing="locked") as mine:
            (mine / "old").touch()
            second = pool.submit(use)
            assert waits.wait(30)
            mine.rename(bench.store.tmp / "cleared")
        waiting.until(mine.is_dir, what="the waiting one has made it anew")
        go_on.set()
        assert second.result(30) == "True"


def test_a_step_may_mount_a_locked_cache_twice(bench: Bench) -> None:
    mount = "--mount=type=cache,id=a,sharing=locked,target="
    image = bench.build(f"{FROM}RUN {mount}/x {mount}/y touch /x/f && test -e /y/f && touch /done\n")
    assert "done" in bench.tree(image)


def test_steps_take_their_locks_in_one_order(bench: Bench) -> None:
    """By name, whatever the Dockerfile says: no two of them wait for each other."""
    known = cache.Cache(store=bench.store)
    mounts = " ".join(f"--mount=type=cache,id={name},sharing=locked,target=/{name}" for name in ("b", "a"))
    with futures.ThreadPoolExecutor(1) as pool:
        with known.mount("a", sharing="locked") as first, known.mount("b", sharing="locked"):
            build = pool.submit(bench.build, f"{FROM}RUN {mounts} touch /done\n")
            fd = os.open(first, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with known.mount("b", sharing="locked"):
                waiting.until(lambda: is_held(fd) or build.done(), what="it has the first", timeout_s=30)
                assert not build.done()
        finally:
            os.close(fd)
        assert "done" in bench.tree(build.result(60))


def is_held(fd: int) -> bool:
    if not locks.attempt(fd):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "step",
    ["RUN --mount=type=cache,id=held,sharing=locked,target=/c true", "ADD http://127.0.0.1:{port}/x /x"],
    ids=["cache", "server"],
)
def test_a_failure_ends_what_waits_for_others(bench: Bench, step: str) -> None:
    """When one stage fails, the others end, whatever they are waiting for: not after the hour that they might."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one processor: stages are built one after the other")
    known = cache.Cache(store=bench.store)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        known.mount("held", sharing="locked"),
        known.mount("go", sharing="shared") as go,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        waits = step.format(port=silent.getsockname()[1])
        fails = "RUN --mount=type=cache,id=go,target=/go until [ -e /go/on ]; do usleep 9999; done; false"
        text = f"{FROM}{waits}\n{FROM}{fails}\nFROM scratch\nCOPY --from=0 / /\nCOPY --from=1 / /\n"
        build = pool.submit(bench.build, text)
        waiting.until(lambda: {waits, fails} <= set(bench.last.begins), what="both have begun", timeout_s=30)
        (go / "on").touch()
        with pytest.raises(errors.BuildFailed, match="exit code 1"):
            build.result(60)


def test_stages_without_need_of_each_other_run_side_by_side(bench: Bench) -> None:
    """Each waits for what only the other does; one after the other, the first would wait until it gives up."""
    wait = "i=0; while [ ! -e /c/{0} ]; do i=$((i+1)); [ $i -lt 400 ] || exit 1; usleep 20000; done; touch /done"
    stage = (
        "FROM localhost/base AS {0}\nRUN --mount=type=cache,id=meet,target=/c touch /c/{0}; "
        + wait.replace("{0}", "{1}")
        + "\n"
    )
    text = (
        stage.format("a", "b")
        + stage.format("b", "a")
        + "FROM scratch\nCOPY --from=a /done /a\nCOPY --from=b /done /b\n"
    )
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one processor: stages are built one after the other")
    assert {"a", "b"} <= bench.tree(bench.build(text)).keys()


def test_stages_that_the_target_does_not_need_are_not_built(bench: Bench) -> None:
    text = "FROM localhost/base AS a\nRUN touch /a\nFROM localhost/base AS b\nRUN exit 1\nFROM a AS c\nRUN touch /c\n"
    image = bench.build(text)
    assert bench.last.made == ["RUN touch /a", "RUN touch /c"]
    assert {"a", "c"} <= bench.tree(image).keys()


def test_builds_at_the_same_time_do_not_disturb_each_other(bench: Bench) -> None:
    """CVE-2024-11218 was such a race. Equal steps may be carried out twice; what comes out is one of them."""
    mount = "--mount=type=cache,id=x,target=/c"
    text = f"{FROM}RUN {mount} echo $$ >> /c/log && mkdir -p /a/b && touch /a/b/c\nRUN rm -r /a/b\n"
    contexts = [bench.context({"Dockerfile": f"{text}LABEL number={number}\n"}) for number in range(4)]

    def build(folder: Path) -> Image:
        with context.folder(folder) as found:
            return builder.build(bench.store, found, workshop.Options(), area=bench.area)

    with futures.ThreadPoolExecutor(len(contexts)) as pool:
        images = list(pool.map(build, contexts))
    trees = [bench.tree(image) for image in images]
    assert all(tree.keys() == trees[0].keys() for tree in trees)
    assert "a" in trees[0]
    assert "a/b" not in trees[0]
    assert not list(bench.store.tmp.iterdir())
    assert not list(bench.area.iterdir())
