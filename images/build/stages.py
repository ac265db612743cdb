"""One stage, from its FROM to its last instruction: what each instruction does to files, settings and variables.

A step that changes files has a key: the layers below it, and everything that decides over what it does. What the key
names is in the cache, or is made and put there. Steps that only write something down are carried out each time.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from images import errors
from images.build import (
    cache,
    configuration,
    containers,
    dockerfile,
    expansion,
    filesteps,
    graph,
    instructions,
    mistakes,
    runstep,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from images.build.configuration import Settings
    from images.build.instructions import Dockerfile, Instruction
    from images.build.scope import Scope
    from images.build.sources import Tree
    from images.build.workshop import Layers, Workshop
    from images.manifest import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A stage at a moment, and in the end: its layers, what is written down, and when its last file was made."""

    layers: Layers
    settings: Settings
    created: str
    platform: Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A stage that is to be built, and what it builds on. `built` waits for another stage."""

    file: Dockerfile
    needed: graph.Needed
    scope: Scope
    first_step: int
    steps: int
    runs: bool  # whether the build has commands to run
    built: Callable[[int], Built]

    @property
    def title(self) -> str:
        return self.needed.stage.name or f"stage-{self.needed.stage.index}"


def build(plan: Plan, shop: Workshop) -> Built:
    """Carry out a stage. Every error names file, line and instruction."""
    stage = _Stage(plan, shop)
    with _placed(plan.needed.origin.place):
        stage.begin()
    for instruction, escape in stage.triggers():
        stage.carry_out(instruction, escape=escape, is_trigger=True)
    for instruction in plan.needed.stage.instructions:
        stage.carry_out(instruction, escape=plan.file.escape)
    return stage.built


class _Stage:
    """Where a stage stands."""

    def __init__(self, plan: Plan, shop: Workshop) -> None:
        self._plan = plan
        self._shop = shop
        self._scope = plan.scope
        self._number, self._trigger = plan.first_step, 0
        self.built = Built(
            layers=(),
            settings=configuration.SCRATCH,
            created=shop.beginning,
            platform=shop.platform(plan.needed.origin.platform),
        )
        self._triggers: tuple[str, ...] = ()

    def begin(self) -> None:
        """FROM: what the stage builds on."""
        self._shop.check_stopped()
        needed = self._plan.needed
        base = None if needed.base is None else self._plan.built(needed.base)
        with self._step(f"FROM {needed.origin.image}", makes_files=False):
            if base is not None:
                self.built = replace(base, settings=replace(base.settings, has_own_cmd=False))
            elif not needed.is_scratch:
                self.built = self._from_image(needed.origin)
        self._triggers = self.built.settings.triggers
        self.built = replace(self.built, settings=configuration.without_triggers(self.built.settings))
        self._scope = self._scope.stage(self.built.settings.env)

    def triggers(self) -> Iterator[tuple[Instruction, str]]:
        """What ONBUILD of the base says, which comes before the stage's own, and the character that escapes in it."""
        index = self._plan.needed.base
        if index is not None:
            found = self._plan.file.stages[index].instructions
            yield from (
                (each.instruction, self._plan.file.escape) for each in found if isinstance(each, instructions.Onbuild)
            )
            return
        for text in self._triggers:  # the image's own words are read in its name, and as Docker reads them
            yield dockerfile.trigger(text, image=self._plan.needed.origin.image), dockerfile.TRIGGER_ESCAPE

    def _from_image(self, origin: instructions.From) -> Built:
        found = self._shop.image(origin.image, self._shop.platform(origin.platform))
        data = self._shop.store.read_document(found.config_digest)
        settings = configuration.inherited(data, what=f"config of {origin.image}")
        created = self._shop.no_later(found.config.created or self._shop.beginning)
        return Built(layers=found.layers, settings=settings, created=created, platform=found.platform)

    def carry_out(self, written: Instruction, *, escape: str, is_trigger: bool = False) -> None:
        """One instruction."""
        self._shop.check_stopped()
        self._count(is_trigger=is_trigger)
        makes_files = isinstance(written, instructions.Run | instructions.Copy | instructions.Workdir)
        with (
            _placed(written.place),
            self._step(written.place.text.partition("\n")[0], makes_files=makes_files) as step,
        ):
            self._warn(written, escape)
            instruction = expansion.expanded(written, self._scope.variables, escape)
            made = self._files(instruction, step)
            if made is not None and made.layer is not None:
                self.built = replace(self.built, layers=(*self.built.layers, made.layer), created=made.created)
            self._write_down(instruction, written.place.text, empty=made is None or made.layer is None)

    def _warn(self, written: Instruction, escape: str) -> None:
        scope = self._scope
        for text in expansion.unset(written, scope.variables, escape, declared=scope.declared):
            self._shop.watcher.warned(text)

    def _write_down(self, instruction: Instruction, text: str, *, empty: bool) -> None:
        match instruction:
            case instructions.Arg():
                self._scope = self._scope.declare(instruction)
            case instructions.Env():
                self._scope = self._scope.set(instruction)
            case _:
                pass
        event = configuration.Event(created=self.built.created, created_by=text, empty=empty)
        self.built = replace(self.built, settings=configuration.applied(self.built.settings, instruction).told(event))

    # Files ------------------------------------------------------------------------------------------------------------

    def _files(self, instruction: Instruction, step: _Running) -> cache.Made | None:
        """What an instruction does to files; None for one that never does."""
        match instruction:
            case instructions.Run():
                task: filesteps.Task = runstep.RunTask(
                    self._shop, self.built, self._scope, instruction, self._tree, step.wrote
                )
            case instructions.Copy():
                task = filesteps.CopyTask(self._shop, self.built, instruction, self._source)
            case instructions.Workdir():
                task = filesteps.WorkdirTask(self._shop, self.built, instruction)
            case _:
                return None
        return self._cached(task, step)

    def _cached(self, task: filesteps.Task, step: _Running) -> cache.Made:
        asked: list[str] = []
        with contextlib.closing(task):
            found = self._find(task, asked)
            step.cached = found is not None
            if found is None:
                if self._plan.runs:
                    self._shop.containers.warm_up()
                made = task.carry_out()
                found = cache.Made(layer=made, created=self._shop.now() if made else self.built.created)
                if not task.holds():
                    self._shop.watcher.warned(f"{step.text}: files changed while they were copied; build again")
                    return found
        for key in asked:
            self._shop.cache.keep(key, found)
        return found

    def _find(self, task: filesteps.Task, asked: list[str]) -> cache.Made | None:
        """What the cache has under one of the task's keys; those that were asked for are noted."""
        for key in task.keys():  # noqa: SIM118 - no dictionary
            asked.append(key)
            found = self._shop.cache.find(key)
            if found is not None:
                return found
        return None

    def _source(self, name: str) -> tuple[Layers, str]:
        """The layers that a `--from` names, and what to call them."""
        place = self._plan.needed.origin.place
        index = self._plan.needed.sources.get(name)
        if name not in self._plan.needed.sources:  # of a trigger
            index = graph.source(self._plan.file, self._plan.needed.stage, name, place)
        if index is not None:
            return self._plan.built(index).layers, f"stage {name}"
        return self._shop.image(name).layers, f"image {name}"

    def _tree(self, name: str) -> Tree:
        return self._shop.tree(*self._source(name)) if name else self._shop.context.tree

    # Telling ----------------------------------------------------------------------------------------------------------

    def _count(self, *, is_trigger: bool) -> None:
        if is_trigger:
            self._trigger += 1
        else:
            self._number, self._trigger = self._number + 1, 0

    @contextlib.contextmanager
    def _step(self, text: str, *, makes_files: bool) -> Iterator[_Running]:
        plan = self._plan
        told = watching.Step(
            stage=plan.title,
            number=self._number,
            trigger=self._trigger,
            total=plan.steps,
            text=text,
            makes_files=makes_files,
        )
        running = _Running(told, self._shop.watcher)
        began = time.monotonic()
        self._shop.watcher.begun(told)
        yield running
        self._shop.watcher.ended(told, cached=running.cached, seconds=time.monotonic() - began)


class _Running:
    """A step while it runs."""

    def __init__(self, step: watching.Step, watcher: watching.Watcher) -> None:
        self._step = step
        self._watcher = watcher
        self.cached = False

    @property
    def text(self) -> str:
        return self._step.text

    def wrote(self, data: bytes) -> None:
        self._watcher.wrote(self._step, data)


@contextlib.contextmanager
def _placed(place: instructions.Place) -> Iterator[None]:
    """Errors get the place of the instruction, once."""
    try:
        yield
    except containers.Stopped:
        raise
    except errors.ImageError as error:
        if str(error).startswith(f"{place}:"):
            raise
        placed = type(error)(str(mistakes.at(place, str(error))))
        for note in getattr(error, "__notes__", ()):
            placed.add_note(note)  # what mirrors said, say
        raise placed from error
    except OSError as error:
        raise errors.StorageFailed(str(mistakes.at(place, f"{error}; check the disk"))) from error
