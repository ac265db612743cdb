"""What was typed is never lost, and nothing else stays behind."""

import shlex
from collections.abc import Iterator

import pytest

from orchctl import editing, errors
from tests.support import samples


@pytest.fixture
def draft() -> Iterator[editing.Draft]:
    made = editing.Draft(samples.service())
    yield made
    made.remove()


def edit(monkeypatch: pytest.MonkeyPatch, draft: editing.Draft, script: str, *remarks: str) -> str:
    """Edits with a shell's script, to which the file is `$1`."""
    monkeypatch.setenv("VISUAL", f"sh -c {shlex.quote(script)} editor")
    return draft.edit(remarks)


def test_an_editor_that_fails_leaves_no_file(draft: editing.Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.NotDone, match="the editor ended with exit code 3"):
        edit(monkeypatch, draft, "exit 3")
    assert not draft.path.exists()


def test_an_editor_that_is_none_leaves_no_file(draft: editing.Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "/nonsense")
    with pytest.raises(errors.InvalidInput, match="cannot start the editor '/nonsense'"):
        draft.edit([])
    assert not draft.path.exists()


def test_what_was_typed_before_the_editor_failed_stays(draft: editing.Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.NotDone) as given_up:
        edit(monkeypatch, draft, "echo 'typed: yes' >> $1; exit 1")
    assert given_up.value.hint == f"your text is in {draft.path}"
    assert "typed: yes" in draft.path.read_text()


@pytest.mark.parametrize("editor", ["false", "/nonsense"])
def test_what_was_refused_before_stays(draft: editing.Draft, monkeypatch: pytest.MonkeyPatch, editor: str) -> None:
    """It is opened again with the reason, and the editor fails."""
    edit(monkeypatch, draft, "echo 'typed: yes' >> $1")
    monkeypatch.setenv("VISUAL", editor)
    with pytest.raises(errors.NotDone) as given_up:
        draft.edit(["", "It was refused"])
    assert given_up.value.hint == f"your text is in {draft.path}"
    assert "typed: yes" in draft.path.read_text()
