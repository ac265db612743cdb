"""A program that reads its options from a file, as a process of its own."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]

PROGRAM = """\
import os, sys
from protos import starting

def translated(path, text, others):
    if b"wrong" in text:
        raise ValueError(f"{path}: wrong")
    return [*text.decode().split(), *others]

started = os.environ.setdefault("STARTED", str(os.getpid()))
starting.configured("prog", sys.argv[1:], translated)
print(started == str(os.getpid()), "yaml" in sys.modules, sys.argv[1:])
"""


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, program, *arguments],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_becomes_itself_with_what_the_file_says_before_what_it_was_told(tmp_path: Path) -> None:
    """The same process, which is the one that its supervisor knows."""
    (tmp_path / "file").write_text("--name=n1")
    for said in (["--config", str(tmp_path / "file")], [f"--config={tmp_path / 'file'}"]):
        assert run(tmp_path, "--a", *said, "--b").stdout == "True False ['--name=n1', '--a', '--b']\n"
    assert run(tmp_path, "--a").stdout == "True False ['--a']\n"


def test_a_file_that_cannot_be_used_ends_it_with_a_line_that_says_why(tmp_path: Path) -> None:
    """With the exit code of wrong options, after which a service manager does not try again."""
    (tmp_path / "file").write_text("wrong")
    done = run(tmp_path, "--config", str(tmp_path / "file"))
    assert (done.returncode, done.stderr) == (2, f"prog: {tmp_path / 'file'}: wrong\n")
    done = run(tmp_path, "--config", str(tmp_path / "gone"))
    assert (done.returncode, done.stderr) == (2, f"prog: cannot read {tmp_path / 'gone'}: No such file or directory\n")
