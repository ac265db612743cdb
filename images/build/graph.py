"""Which stages a target needs, and in which order they can be built.

A stage needs those that its FROM, its `COPY --from` and its `RUN --mount=from=` name, by name in any case or by number,
and those that the triggers of the stage name which it continues. FROM knows earlier stages only, the others all. A name
that is no stage's is an image's. Whoever names the stage itself, a number that does not exist, or goes round in a
circle, is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from images import errors
from images.build import expansion, instructions, mistakes, quantities

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """A stage that is built: `base` is the stage that it continues, or None for an image (`origin.image`) or scratch.

    `sources` has what each `--from` of the stage means: the index of a stage, or None for an image.
    """

    stage: instructions.Stage
    origin: instructions.From
    base: int | None
    sources: Mapping[str, int | None]

    @property
    def is_scratch(self) -> bool:
        return self.base is None and self.origin.image == SCRATCH

    @property
    def stages(self) -> frozenset[int]:
        """The stages that must be there before."""
        found = frozenset(index for index in self.sources.values() if index is not None)
        return found if self.base is None else found | {self.base}

    @property
    def images(self) -> tuple[str, ...]:
        """The images that must be there before, in the order in which they are named."""
        base = () if self.base is not None or self.is_scratch else (self.origin.image,)
        return tuple(dict.fromkeys((*base, *(name for name, index in self.sources.items() if index is None))))


def needed(
    dockerfile: instructions.Dockerfile, target: str = "", variables: Mapping[str, str] | None = None
) -> tuple[Needed, ...]:
    """The stages that `target` (a name or a number; "" is the last) needs, each after those that it needs itself.

    `variables` are the ARGs before the first FROM, for `FROM $BASE`. Raises InvalidDockerfile.
    """
    found: dict[int, Needed] = {}
    wanted = [target_index(dockerfile, target)]
    while wanted:
        index = wanted.pop()
        if index not in found:
            found[index] = _looked_at(dockerfile, dockerfile.stages[index], variables or {})
            wanted.extend(found[index].stages)
    return tuple(_ordered(found))


def _ordered(found: dict[int, Needed]) -> Iterator[Needed]:
    """As in the file, except that what is needed comes first."""
    left = dict(sorted(found.items()))
    while left:
        ready = next((index for index, each in left.items() if not each.stages & left.keys()), None)
        if ready is None:
            raise _circle(left)
        yield left.pop(ready)


def _circle(left: dict[int, Needed]) -> errors.InvalidDockerfile:
    """Every stage that is left waits for another one, so that whoever follows comes back."""
    index, path = min(left), []
    while index not in path:
        path.append(index)
        index = min(left[index].stages & left.keys())
    round_trip = [left[each].stage for each in (*path[path.index(index) :], index)]
    told = " needs ".join(stage.name or str(stage.index) for stage in round_trip)
    return mistakes.at(round_trip[0].origin.place, f"stages need each other: {told}; divide one of them in two")


def target_index(dockerfile: instructions.Dockerfile, target: str) -> int:
    """Which stage a person means by `--target`."""
    if not target:
        return len(dockerfile.stages) - 1
    found = _index(dockerfile.stages, target)
    if found is None:
        known = [stage.name for stage in dockerfile.stages if stage.name]
        near = mistakes.near(target.lower(), known) if known else "no stage has a name"
        raise errors.InvalidDockerfile(f"{dockerfile.name}: there is no stage {mistakes.shown(target)}; {near}")
    return found


def _looked_at(dockerfile: instructions.Dockerfile, stage: instructions.Stage, variables: Mapping[str, str]) -> Needed:
    origin = expansion.origin(stage.origin, variables, dockerfile.escape)
    # FROM takes names only: `FROM 0` is the image 0.
    base = None if origin.image.isdigit() else _index(dockerfile.stages[: stage.index], origin.image)
    found = (*_triggers(dockerfile, base), *stage.instructions)
    sources = {name: source(dockerfile, stage, name, each.place) for each in found for name in named(each)}
    return Needed(stage=stage, origin=origin, base=base, sources=sources)


def named(instruction: instructions.Instruction) -> tuple[str, ...]:
    """What the `--from` of an instruction name, as written; ONBUILD itself takes nothing."""
    match instruction:
        case instructions.Copy():
            return (instruction.from_,) if instruction.from_ else ()
        case instructions.Run():
            return tuple(mount.from_ for mount in instruction.mounts if mount.from_)
        case _:
            return ()


def _triggers(dockerfile: instructions.Dockerfile, base: int | None) -> tuple[instructions.Instruction, ...]:
    """What ONBUILD of the stage that is continued says: it is carried out in this one."""
    there = () if base is None else dockerfile.stages[base].instructions
    return tuple(each.instruction for each in there if isinstance(each, instructions.Onbuild))


def source(
    dockerfile: instructions.Dockerfile, stage: instructions.Stage, name: str, place: instructions.Place
) -> int | None:
    """What a `--from` means in a stage, also one that comes with a trigger of its base image; None is an image.

    Of stages that share a name, the nearest before counts.
    """
    found = _index(dockerfile.stages[: stage.index], name)
    if found is None and name.lower() != stage.name:
        found = _index(dockerfile.stages, name)
    if found == stage.index or (found is None and name.lower() == stage.name):
        raise mistakes.at(place, f"from={mistakes.shown(name)} is this stage itself; name another one")
    if found is None and name.isdigit():
        count = len(dockerfile.stages)
        raise mistakes.at(place, f"from={mistakes.shown(name)}: there are {count} stages, which count from 0")
    return found


def _index(stages: tuple[instructions.Stage, ...], name: str) -> int | None:
    """The last stage of a name, or the one of a number."""
    lower = name.lower()
    by_name = next((stage.index for stage in reversed(stages) if stage.name and stage.name == lower), None)
    if by_name is not None:
        return by_name
    return quantities.whole_number(name, most=len(stages) - 1)
