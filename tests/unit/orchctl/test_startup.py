"""`orchctl --help` and completion of verbs come at once: what a verb needs is imported by that verb."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchctl import cli
from orchctl.verbs.images import group
from tests.support import orchctl

HEAVY = ("grpc", "google.protobuf", "yaml", "asyncio", "protos.orch", "manifests", "images")
SCRIPT = f"""
import sys
from orchctl import main
code = main.run(sys.argv[1:])
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print("loaded:", loaded, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "environ", "code"),
    [
        (["--help"], {}, 0),
        (["--version"], {}, 0),
        (["aply"], {}, 2),
        (["image", "--help"], {}, 0),
        (["image", "puhs"], {}, 2),
        (["node", "join", "--help"], {}, 0),  # what it becomes loads what it needs
        (["node", "leave", "--help"], {}, 0),
        ([], {"_ORCHCTL_COMPLETE": "bash_complete", "COMP_WORDS": "orchctl ", "COMP_CWORD": "1"}, 0),
    ],
)
def test_nothing_heavy_is_imported(arguments: list[str], environ: dict[str, str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**orchctl.environment(tmp_path), **environ},
        capture_output=True,
        text=True,
        timeout=orchctl.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    if "_ORCHCTL_COMPLETE" in environ:
        assert "plain,apply" in done.stdout.splitlines()
    assert environ or done.stderr.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_its_summary(verb: str, tmp_path: Path) -> None:
    result = orchctl.run(orchctl.environment(tmp_path), verb, "--help")
    assert result.code == 0, result.err
    assert result.out.startswith(f"Usage: orchctl {verb}")


def test_every_verb_has_one_module_and_every_module_one_verb() -> None:
    folder = Path(cli.__file__).parent / "verbs"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "nodes"}  # `nodes` is the other half of `node`
    assert modules == {verb.module for verb in cli.VERBS.values() if "." not in verb.module}


def test_every_verb_of_images_has_one_module_and_every_module_one_verb() -> None:
    modules = {f"images.{path.stem}" for path in Path(group.__file__).parent.glob("*.py")}
    assert modules - {"images.__init__", "images.group"} == {verb.module for verb in group.VERBS.values()}


@pytest.mark.parametrize("verb", group.VERBS)
def test_every_verb_of_images_has_help_with_its_summary(verb: str, tmp_path: Path) -> None:
    result = orchctl.run(orchctl.environment(tmp_path), "image", verb, "--help")
    assert result.code == 0, result.err
    assert result.out.startswith(f"Usage: orchctl image {verb}")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_a_full_disk_is_one_line(argument: str, tmp_path: Path) -> None:
    """What cannot be written must not look done: a script may go on with half of a file."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            orchctl.command(argument),
            env=orchctl.environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=orchctl.TIMEOUT_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "orchctl: cannot write the output: No space left on device\n")
