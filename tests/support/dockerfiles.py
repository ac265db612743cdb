"""The corpus of Dockerfiles below tests/integration/images/dockerfiles: each a folder that is its own build context.

A case is `Dockerfile`, the files it copies, and `case.yaml`, which says what cannot be seen from them:

- `about`: what the case shows.
- `build_args`, `target`: how it is built.
- `fails`: the build must fail, and the message holds this text.
- `ignore_by_buildah`: why buildah 1.28 is no judge of it. Then the case says itself what comes out:
- `holds` (a path's content), `modes` (`0644 1000:1000`), `lacks` (paths that are not there), `env` (variables).

Bases are `scratch` and `localhost/base`, so that nothing is fetched. The latter holds a static busybox with a link
for each applet in /bin, `PATH=/bin`, and the users and groups root and app (1000, with /home/app its own), and /tmp.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent / "integration" / "images" / "dockerfiles"
BASE = "localhost/base"
_KEYS = frozenset({"about", "build_args", "target", "fails", "ignore_by_buildah", "holds", "modes", "lacks", "env"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One build; an empty text means that nothing was said."""

    name: str
    folder: Path
    about: str
    build_args: dict[str, str] = field(default_factory=dict)
    target: str = ""
    fails: str = ""
    ignore_by_buildah: str = ""
    holds: dict[str, str] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    @property
    def dockerfile(self) -> Path:
        return self.folder / "Dockerfile"


def cases() -> tuple[Case, ...]:
    """Every case, by name. A key that nobody reads is an error: it was meant to say something."""
    return tuple(_read(folder) for folder in sorted(ROOT.iterdir()))


def _read(folder: Path) -> Case:
    said = yaml.safe_load((folder / "case.yaml").read_text())
    unknown = said.keys() - _KEYS
    if unknown:
        raise ValueError(f"{folder}/case.yaml: {', '.join(sorted(unknown))}; the keys are {', '.join(sorted(_KEYS))}")
    lacks = tuple(said.pop("lacks", ()))
    return Case(name=folder.name, folder=folder, lacks=lacks, **said)
