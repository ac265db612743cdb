"""What we build is what buildah builds, for every Dockerfile of the corpus: trees and configurations.

Where the two differ for a reason, the reason stands below, once; a case that is no question for buildah 1.28 at all
says so itself (`case.yaml`).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import building, dockerfiles
from tests.support.buildah import Buildah

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.building import Node

pytestmark = [pytest.mark.root, pytest.mark.slow]

_CASES = [case for case in dockerfiles.cases() if not case.fails and not case.ignore_by_buildah]

_LEFT_BEHIND = {"etc/hostname", "etc/hosts", "etc/resolv.conf", "run", "mnt"}
"""buildah leaves what it made to mount something on; we take it away again."""

_ARCHIVES = {"add-bzip2", "add-gzip", "add-tar", "add-xz"}
"""buildah gives what it unpacks to root; with us, as with Docker, it has the owners that the archive says."""

_BRACKET = {"copy-literal-bracket"}
"""buildah takes `[[]x].txt` for the name `x.txt`; as Go's filepath.Match has it, it is `[x].txt`."""

_SHELL = {"config-shell"}
"""buildah takes no notice of SHELL in CMD."""


@pytest.fixture(scope="module")
def bench() -> Iterator[building.Bench]:
    folder = Path(tempfile.mkdtemp(prefix="pytest-b-", dir="/tmp"))
    made = building.Bench(folder)
    made.add_base()
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def judge(bench: building.Bench) -> Buildah:
    folder = bench.folder / "j"
    folder.mkdir()
    found = Buildah(folder)
    found.load(bench.store, bench.store.resolve(building.BASE))
    return found


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_trees_and_configurations_are_those_of_buildah(
    bench: building.Bench, judge: Buildah, case: dockerfiles.Case
) -> None:
    theirs = judge.build(case)
    image = bench.build(case.folder, build_args=case.build_args, target=case.target)
    ours = bench.tree(image)
    different = {path for path in ours.keys() | theirs.tree.keys() if ours.get(path) != theirs.tree.get(path)}
    unexplained = {path for path in different if not _is_explained(case, path, ours.get(path), theirs.tree.get(path))}
    assert {path: (ours.get(path), theirs.tree.get(path)) for path in unexplained} == {}
    assert _config(case, bench.config(image)) == _config(case, theirs.document)


def _is_explained(case: dockerfiles.Case, path: str, ours: Node | None, theirs: Node | None) -> bool:
    if path == "" and ours is not None and theirs is not None:
        # Of a layer that does not say so, vfs gives the root 0555.
        return replace(ours, mode=0o555) == theirs
    if path in _LEFT_BEHIND:
        return ours is None
    if case.name in _ARCHIVES and ours is not None and theirs is not None:
        return replace(ours, uid=0, gid=0) == theirs
    return case.name in _BRACKET and path in {"dst/[x].txt", "dst/x.txt"}


def _config(case: dockerfiles.Case, document: dict[str, Any]) -> dict[str, Any]:
    """What counts of a configuration: no order of variables, nothing of the tool, no empty entries."""
    found = {name: value for name, value in document["config"].items() if value}
    found.pop("Hostname", None)  # of buildah's working container
    found["Env"] = sorted(found["Env"])
    labels = {name: value for name, value in found.pop("Labels", {}).items() if name != "io.buildah.version"}
    if case.name in _SHELL:
        del found["Cmd"]
    return {**found, "Labels": labels, "author": document.get("author", "")}
