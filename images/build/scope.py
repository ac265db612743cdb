"""Where a variable comes from: ARG, `--build-arg`, ENV, the platform and the proxies; all as values.

The rules, which are Docker's:

- ARGs before the first FROM are seen by FROM only; `ARG NAME` in a stage lets one in.
- A `--build-arg` goes before what is written, and counts only where an ARG declares it. Proxies need no ARG.
- ENV goes before ARG, wherever it stands. A stage that continues another has its ENV, and none of its ARGs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from images import errors
from images.build import expansion, instructions, mistakes

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_PLATFORM = re.compile(r"([a-z0-9_.-]+)/([a-z0-9_.-]+)(?:/([a-z0-9_.-]+))?", re.ASCII)
EPOCH = "SOURCE_DATE_EPOCH"
"""Says when the image was made, with an ARG or without one."""

PROXIES = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))


def platform_arguments(*, target: str, build: str) -> dict[str, str]:
    """`TARGETPLATFORM`, `TARGETOS`, `TARGETARCH`, `TARGETVARIANT` and those of BUILD; `linux/arm/v7` is a platform."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        match = _PLATFORM.fullmatch(platform)
        if match is None:
            raise errors.InvalidDockerfile(f"platform {platform!r:.80}: write SYSTEM/MACHINE, as in linux/amd64")
        values = {"PLATFORM": platform, "OS": match[1], "ARCH": match[2], "VARIANT": match[3] or ""}
        found |= {f"{prefix}{name}": value for name, value in values.items()}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is known before an instruction. `arguments` are those that were declared and have a value."""

    build_args: Mapping[str, str] = field(default_factory=dict)
    outer: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()

    @property
    def variables(self) -> dict[str, str]:
        """What `$NAME` means."""
        return {**self.arguments, **self.environment}

    @property
    def run_environment(self) -> dict[str, str]:
        """What a program of RUN finds; proxies are there without having been declared."""
        return {**self.proxies, **self.variables}

    @property
    def proxies(self) -> dict[str, str]:
        """The proxies that were given: they are not part of the key of a step in the cache."""
        return {name: value for name, value in self.build_args.items() if name in PROXIES}

    def declare(self, arg: instructions.Arg) -> Scope:
        """After an ARG whose variables are replaced already. Without any value the name stays as it was."""
        found = {name: value for name, default in arg.variables if (value := self._value(name, default)) is not None}
        declared = self.declared | {name for name, _ in arg.variables}
        return replace(self, arguments={**self.arguments, **found}, declared=declared)

    def _value(self, name: str, default: str | None) -> str | None:
        given = self.build_args.get(name, default)
        return self.outer.get(name) if given is None else given

    def set(self, env: instructions.Env) -> Scope:
        """After an ENV whose variables are replaced already."""
        return replace(self, environment={**self.environment, **dict(env.variables)})

    def stage(self, environment: Mapping[str, str]) -> Scope:
        """The beginning of a stage, with the environment of its base; from the scope of the whole file."""
        outer = {**self.outer, **self.arguments}
        return replace(self, outer=outer, arguments={}, declared=frozenset(), environment=dict(environment))

    @property
    def globals(self) -> dict[str, str]:
        """What FROM sees, in the scope of the whole file."""
        return {**self.outer, **self.arguments}


def whole_file(
    dockerfile: instructions.Dockerfile, *, build_args: Mapping[str, str], platform: Mapping[str, str]
) -> Scope:
    """The scope before the first FROM: the platform, and the ARGs there, each of which sees those before it."""
    found = Scope(build_args=build_args, outer=platform)
    for arg in dockerfile.globals:
        for variable in arg.variables:
            one = replace(arg, variables=(variable,))
            given = expansion.expanded(one, found.globals, dockerfile.escape)
            assert isinstance(given, instructions.Arg), "an ARG stays one"
            found = found.declare(given)
    return found


def undeclared(
    dockerfile: instructions.Dockerfile, build_args: Iterable[str], platform: Mapping[str, str]
) -> tuple[str, ...]:
    """A warning for each `--build-arg` that no ARG of the file takes, with what was meant perhaps."""
    every = [each for stage in dockerfile.stages for each in stage.instructions]
    every += [each.instruction for each in every if isinstance(each, instructions.Onbuild)]
    written = (each for each in every if isinstance(each, instructions.Arg))
    known = {name for arg in (*dockerfile.globals, *written) for name, _ in arg.variables}
    unused = (name for name in build_args if name not in known | PROXIES | platform.keys() | {EPOCH})
    return tuple(_unused(name, known, dockerfile.name) for name in unused)


def _unused(name: str, known: set[str], file: str) -> str:
    near = mistakes.near(name, known) if known else "it declares none"
    return f"{file}: no ARG takes --build-arg {mistakes.shown(name)}; {near}"
