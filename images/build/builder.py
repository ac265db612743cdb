"""Build an image from a Dockerfile: `build`.

    with context.folder(Path("."), dockerfile="") as found:
        image = builder.build(store, found, Options(target="app"), names=("web:1",), area=Path("/run/orch/builds"))

Rules. Only stages that the target needs are built, independent ones side by side. A build that fails gives no name and
leaves nothing but what its finished steps put into the cache. Where nothing has to be made anew, the same files,
Dockerfile and options give the same image.
"""

from __future__ import annotations

import os
from concurrent import futures
from dataclasses import replace
from typing import TYPE_CHECKING

from images import errors, manifest, reference
from images.build import assembly, containers, dockerfile, graph, instructions, scope, stages, watching, workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from images.build.context import Context
    from images.build.instructions import Dockerfile
    from images.build.stages import Built
    from images.build.workshop import Options, Workshop
    from images.image import Image
    from images.manifest import Platform
    from images.store import ImageStore

_LAST_SECOND = 253_402_300_799
_EPOCH_DIGITS = 12


def build(
    store: ImageStore,
    context: Context,
    options: Options,
    *,
    area: Path,
    names: Sequence[str] = (),
    watcher: watching.Watcher | None = None,
    pull: Callable[[str, Platform], None] | None = None,
) -> Image:
    """Build the target and give it its names; without any, only its digest finds it.

    `area` is a folder for the state of running containers, best on a tmpfs. `pull` brings an image that the store does
    not hold into it. Raises `InvalidDockerfile`, `BuildFailed`, and the other errors of images, each with its place.
    """
    if os.geteuid() != 0:
        raise errors.StorageFailed("building images needs root: file trees are mounted and files get owners; use sudo")
    for name in names:
        if reference.parse(name).digest is not None:
            raise errors.InvalidReference(
                f"{name:.300}: pins a digest, which nobody knows before the build; leave it out"
            )
    file = dockerfile.parse(context.dockerfile, name=context.name)
    options = _with_epoch(options)
    watcher = watcher or watching.Nobody()
    if options.secrets and not containers.is_in_memory(area):
        watcher.warned(f"secrets lie on a disk while their commands run: {area} is on no tmpfs")
    with store.hold(), containers.Containers(store, area) as running:
        shop = workshop.Workshop(store, context, options, running=running, watcher=watcher, pull=pull)
        with shop:
            built = _build_stages(file, shop)
            return _add_image(shop, built, names)


def _with_epoch(options: Options) -> Options:
    text = options.build_args.get(scope.EPOCH, "")
    if not text or options.epoch_s is not None:
        return options
    if not (text.isascii() and text.isdecimal()) or len(text) > _EPOCH_DIGITS or int(text) > _LAST_SECOND:
        raise errors.InvalidDockerfile(
            f"{scope.EPOCH}={text!r:.40}: expected seconds since 1970, at most {_LAST_SECOND} (the year 9999)"
        )
    return replace(options, epoch_s=int(text))


def _build_stages(file: Dockerfile, shop: Workshop) -> Built:
    platform = scope.platform_arguments(target=str(shop.options.platform), build=str(manifest.host_platform()))
    outer = scope.whole_file(file, build_args=shop.options.build_args, platform=platform)
    for text in (*file.warnings, *scope.undeclared(file, shop.options.build_args, platform)):
        shop.watcher.warned(text)
    needed = graph.needed(file, shop.options.target, outer.globals)
    steps = sum(1 + len(one.stage.instructions) for one in needed)
    runs = any(isinstance(each, instructions.Run) for one in needed for each in one.stage.instructions)
    jobs: dict[int, futures.Future[Built]] = {}

    with futures.ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="stage") as pool:
        first = 1
        try:
            for one in needed:
                built = _earlier(dict(jobs))
                plan = stages.Plan(
                    file=file, needed=one, scope=outer, first_step=first, steps=steps, runs=runs, built=built
                )
                jobs[one.stage.index] = pool.submit(_run_stage, plan, shop)
                first += 1 + len(one.stage.instructions)
            return _outcome(list(jobs.values()))
        except BaseException:
            shop.stopped.set()
            shop.containers.stop()
            raise


def _earlier(jobs: Mapping[int, futures.Future[Built]]) -> Callable[[int], Built]:
    """How a stage waits for another: only for those that have their threads before it, so nobody waits for good.

    What the Dockerfile names stands before it. Triggers of a base image, which are not read until the stage begins,
    may name any: one that comes later may itself be waiting for this one.
    """

    def built(index: int) -> Built:
        if index not in jobs:
            raise errors.InvalidDockerfile(
                f"a trigger of the base image takes files from stage {index}, which is not built before this one; "
                f"write a COPY --from={index} into this stage as well"
            )
        return jobs[index].result()

    return built


def _run_stage(plan: stages.Plan, shop: Workshop) -> Built:
    try:
        return stages.build(plan, shop)
    except BaseException:
        # The others are worth nothing any more; what they say then is not what a person wants to know.
        shop.stopped.set()
        shop.containers.stop()
        raise


def _outcome(jobs: list[futures.Future[Built]]) -> Built:
    """What the last stage is, or the error that began it all."""
    futures.wait(jobs)
    failures = [error for job in jobs if (error := job.exception()) is not None]
    for failure in failures:
        if not isinstance(failure, containers.Stopped):
            raise failure
    return jobs[-1].result()


def _add_image(shop: Workshop, built: Built, names: Sequence[str]) -> Image:
    created = built.created if shop.options.epoch_s is None else shop.now()
    return assembly.add(shop.store, built.settings, built.layers, platform=built.platform, created=created, names=names)
