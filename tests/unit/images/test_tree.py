"""What the root of an image holds, as far as memory is concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from images import archive, compression, errors, tree
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("bound", "fits"), [(4, True), (3, False)])
def test_the_entries_of_all_layers_together_have_a_bound(tmp_path: Path, bound: int, fits: bool) -> None:
    """Each layer is far below it; a hostile image would have five hundred of them."""
    store = ImageStore(tmp_path)
    layers = [makers.archive(*(makers.member(f"{text}{number}") for number in range(2))) for text in "ab"]
    made = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(*layers))), name="web")
    known = tree.Layers(store=store, limits=compression.Limits(max_entries=bound))
    if fits:
        assert len(tree.files(known, made)) == 4
        assert len(tree.files(known, made)) == 4, "what is known is not counted again"
    else:
        with pytest.raises(errors.LimitExceeded, match="with those below more than 3 entries"):
            tree.files(known, made)
