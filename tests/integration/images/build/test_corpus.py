"""The Dockerfiles that buildah is no judge of: what must fail says why, and the others are what they say themselves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images import errors
from tests.support import building, dockerfiles

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.slow]

_FAILING = [case for case in dockerfiles.cases() if case.fails]
_OURS = [case for case in dockerfiles.cases() if case.ignore_by_buildah and not case.fails]


@pytest.fixture(scope="module")
def bench() -> Iterator[building.Bench]:
    folder = Path(tempfile.mkdtemp(prefix="pytest-c-", dir="/tmp"))
    made = building.Bench(folder)
    made.add_base()
    yield made
    shutil.rmtree(folder)


@pytest.mark.parametrize("case", _FAILING, ids=lambda case: case.name)
def test_what_cannot_be_built_says_why_in_one_place(bench: building.Bench, case: dockerfiles.Case) -> None:
    """The message names the file, and what the case is about; the build leaves no image."""
    before = bench.store.names()
    with pytest.raises(errors.ImageError) as raised:
        bench.build(case.folder, build_args=case.build_args, target=case.target, names=("localhost/failed",))
    assert case.fails in str(raised.value)
    assert str(raised.value).startswith("Dockerfile:")
    assert bench.store.names() == before


@pytest.mark.parametrize("case", _OURS, ids=lambda case: case.name)
def test_what_comes_out_is_what_the_case_says(bench: building.Bench, case: dockerfiles.Case) -> None:
    image = bench.build(case.folder, build_args=case.build_args, target=case.target)
    tree = bench.tree(image)
    env = dict(entry.split("=", 1) for entry in bench.config(image)["config"]["Env"])
    nodes = {path: tree[path.strip("/")] for path in case.modes}
    assert {path: bench.read(image, path) for path in case.holds} == case.holds
    assert {path: f"{node.mode:04o} {node.uid}:{node.gid}" for path, node in nodes.items()} == case.modes
    assert [path for path in case.lacks if path.strip("/") in tree] == []
    assert {name: env.get(name) for name in case.env} == case.env


@pytest.mark.parametrize("case", _OURS, ids=lambda case: case.name)
def test_a_case_without_a_judge_says_what_comes_out(case: dockerfiles.Case) -> None:
    assert case.holds or case.modes or case.env


def test_variables_that_nobody_has_set_are_told(bench: building.Bench) -> None:
    bench.build(f"FROM {building.BASE}\nARG version=1 optional\nENV a=$vresion b=$optional c=${{d:-}} PATH=$PATH:/x\n")
    assert bench.last.warnings == ["Dockerfile:3: ENV: $vresion is not set; did you mean $version?"]
