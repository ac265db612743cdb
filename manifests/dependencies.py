"""Which services wait for which: what one manifest can get wrong about it, and in which order they come and go.

A graph is a mapping from a name to the names that it depends on; names that are no keys of it depend on nothing.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from manifests import quoting
from manifests.paths import Path
from manifests.problems import Problem
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

Graph = Mapping[str, Collection[str]]

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", re.ASCII)


def service_problems(spec: pb.ServiceSpec, path: Path) -> Iterator[Problem]:
    """Names that no service can have."""
    for name in sorted(spec.depends_on):
        yield from name_problems(name, (*path, "dependsOn", name), at_key=True)


def name_problems(name: str, path: Path, *, at_key: bool = False) -> Iterator[Problem]:
    """Of what should be the name of another service."""
    if not _NAME.fullmatch(name):
        hint = "write the name of one of this namespace, in small letters, digits and '-'"
        message = f"{quoting.shown(name)} is not the name of a service"
        yield Problem(keys=path, message=message, hint=hint, at_key=at_key)


def graph_of(services: Iterable[pb.Service]) -> dict[str, tuple[str, ...]]:
    """By `namespace/name`. Services depend on others of their own namespace."""
    return {
        kinds.qualified(service): tuple(sorted(f"{service.meta.namespace}/{name}" for name in service.spec.depends_on))
        for service in services
        if service.spec.depends_on
    }


def cycle_through(name: str, graph: Graph) -> tuple[str, ...]:
    """The shortest way from a name back to itself, such as (a, b, a); empty when there is none."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    for way in ways:  # it grows while it is walked
        for following in graph.get(way[-1], ()):
            if following == name:
                return (*way, name)
            if following not in seen:
                seen.add(following)
                ways.append((*way, following))
    return ()


def dependents_first(names: Iterable[str], graph: Graph) -> list[str]:
    """The names so that each comes before those that it depends on, else in the order given. Cycles stay as they are.

    [database, web], web depends on database → [web, database].
    """
    ordered = list(names)
    given = set(ordered)
    placed: dict[str, None] = {}
    opened: set[str] = set()

    def place(name: str) -> None:
        if name in opened:
            return
        opened.add(name)
        for other in ordered:
            if name in graph.get(other, ()):
                place(other)
        placed[name] = None

    for name in ordered:
        place(name)
    assert placed.keys() == given, "every name has its place"
    return list(placed)
