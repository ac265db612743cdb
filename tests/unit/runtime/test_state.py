"""The files of a container, and what they mean."""

import os
from pathlib import Path

import pytest

from runtime import errors, state


def known(container: str, monitor_start: int) -> state.State:
    return state.State(
        id=container,
        status="running",
        pid=1,
        pid_start=1,
        monitor_pid=os.getpid(),
        monitor_start=monitor_start,
        bundle="",
        cgroups_path="/orch/a",
        created_ns=1,
        started_ns=2,
    )


def test_status_follows_the_monitor(tmp_path: Path) -> None:
    """Running while its monitor is that very process; stopped when the pid is another's, or exit.json is there."""
    folder = Path(state.folder(str(tmp_path), "a"))
    folder.mkdir()
    start = state.process_start(os.getpid())
    state.write(str(folder / state.STATE_FILE), known("a", start))
    assert state.load(str(tmp_path), "a").status == "running"
    state.write(str(folder / state.STATE_FILE), known("a", start + 1))
    assert state.load(str(tmp_path), "a").status == "stopped"
    state.write(str(folder / state.STATE_FILE), known("a", start))
    ended = state.Exit(exit_code=1, signal=0, oom_killed=False, oom_kills=0, finished_at_ns=3)
    state.write(str(folder / state.EXIT_FILE), ended)
    assert state.load(str(tmp_path), "a").status == "stopped"
    assert state.load_exit(str(tmp_path), "a") == ended
    state.remove_folder(str(folder))
    state.remove_folder(str(folder))
    with pytest.raises(errors.UnknownContainer, match="container a"):
        state.load(str(tmp_path), "a")


@pytest.mark.parametrize("container", ["", ".", "..", "a/b", "../a", "a\0", "x" * 201, "a b"])
def test_ids_are_file_names(container: str) -> None:
    """An id cannot lead out of the state folder."""
    with pytest.raises(errors.InvalidSpec, match="id:"):
        state.folder("/state", container)


def test_start_time_of_no_process() -> None:
    """Zero, which no process has."""
    assert state.process_start(2**22 + 1) == 0
    assert state.process_start(os.getpid()) > 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"hooks": {"poststop": []}}', True),
        ('{"hooks": {"p\\u006fststop": []}}', True),  # the same word to whoever reads JSON
        ('{"hooks": {"prestart": []}}', False),
        ('{"hooks": {"poststop": [', False),  # its writer was killed
    ],
)
def test_a_configuration_is_read_only_if_it_has_the_name(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / state.CONFIG_FILE).write_text(text)
    config = state.load_config(str(tmp_path), naming="poststop")
    assert config == ({"hooks": {"poststop": []}} if found else {})
