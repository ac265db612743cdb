"""The instructions of a Dockerfile as values: what was written, before any variable is replaced.

Variables are replaced when an instruction is carried out, since they depend on what came before it (`expansion`).
`place` says where an instruction stands, for errors. The language is that of Docker's Dockerfile reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`Dockerfile:12` and the instruction's own text, first line first."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """`<<EOF … EOF`: the name decides the file's name in COPY; without `expands` the content is taken as it is.

    `content` ends in a newline unless it is empty; the tabs that `<<-` takes away are gone from it.
    """

    name: str
    content: str
    expands: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line: `words` in the JSON form, or one `line` for the shell. `CMD []` has neither.

    `line` still holds its `<<EOF`, as a shell would want it, followed by the bodies; see `script` for the other case.
    """

    words: tuple[str, ...] = ()
    line: str = ""
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def is_shell(self) -> bool:
        return bool(self.line)

    @property
    def script(self) -> Heredoc | None:
        """The one heredoc of `RUN <<EOF` with nothing beside it: its body is the command, or has a `#!` of its own."""
        alone = len(self.heredocs) == 1 and self.line.startswith("<<") and len(self.line.split()) == 1
        return self.heredocs[0] if alone else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One `RUN --mount=…`; values as written, with variables. An empty text means that nothing was said.

    `writable` has the default of its type in it: caches and tmpfs are, what is bound is not.
    """

    type: str = "bind"
    target: str = ""
    source: str = ""
    from_: str = ""
    id: str = ""
    sharing: str = "shared"
    mode: str = ""
    uid: str = ""
    gid: str = ""
    size: str = ""
    env: str = ""
    writable: bool = False
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class From:
    place: Place
    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """`default` is None where none was written, which is different from an empty one."""

    place: Place
    variables: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    place: Place
    variables: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    place: Place
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    place: Place
    command: Command
    mounts: tuple[Mount, ...] = ()
    network: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """COPY and ADD: `is_add` also unpacks archives and fetches addresses."""

    place: Place
    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    is_add: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir:
    place: Place
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    place: Place
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose:
    place: Place
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    place: Place
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd:
    place: Place
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint:
    place: Place
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """`command` is None for `HEALTHCHECK NONE`; times in nanoseconds, 0 where nothing was said."""

    place: Place
    command: Command | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal:
    place: Place
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    place: Place
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer:
    place: Place
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild:
    """`text` is the instruction as it goes into the image's configuration; `instruction` is what it says."""

    place: Place
    text: str
    instruction: Instruction


Instruction: TypeAlias = (
    Arg
    | Env
    | Label
    | Run
    | Copy
    | Workdir
    | User
    | Expose
    | Volume
    | Cmd
    | Entrypoint
    | Healthcheck
    | Stopsignal
    | Shell
    | Maintainer
    | Onbuild
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM and what follows it. `index` counts from 0; `name` is lower case, or "" where there is none."""

    index: int
    origin: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.origin.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A whole file: the ARGs before the first FROM, the stages, and what its parser directives say.

    `syntax` and `check` are kept, and ask nothing of us. `warnings` are for the person, each with its place.
    """

    name: str
    globals: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    syntax: str = ""
    check: str = ""
    warnings: tuple[str, ...] = ()
