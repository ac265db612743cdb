"""A page of docs/, followed as a person follows it: what it has them type, and what it says they will see.

In an indented block a line that begins with `$ ` is typed, and the lines after it are what is seen. Two rules: what
differs from one run to the next (the ends of names, times, addresses) is compared by its kind, and `…` on the page
stands for anything, within a line or for whole lines.
"""

import difflib
import itertools
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import trust
from protos.orch.v1 import objects_pb2 as pb
from tests.support import cluster
from tests.support.cluster import LocalCluster

_FENCE = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"(?:^ {4,}\S.*\n(?:\n(?= {4}))?)+", re.MULTILINE)
_TASK = re.compile(r"\b([a-z]+-(?:\d+|n\d))-[a-z0-9]{8}\b")
_KINDS = (
    (_TASK, r"\1-ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b(?:\d+(?:d|h|m|s|ms))+\b"), "SPAN"),
    (re.compile(r"\b10(?:\.\d+){3}\b"), "ADDRESS"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "DIGEST"),
    (re.compile(r"\b\d+ +\d+[GM]i\b"), "CPU MEMORY"),
    (re.compile(r", \d+ stopping\b"), ""),
    (re.compile(r"; restart \d+ is next"), ""),
    (re.compile(r" +"), " "),
)
COMMAND_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A command of a page, and what is seen then."""

    command: str
    seen: str


def text(name: str) -> str:
    return (cluster.ROOT / "docs" / name).read_text()


def manifests(name: str) -> Sequence[str]:
    """Those that stand alone, with an image that the tests' clusters have. What shows a part of one has no kind."""
    found = re.findall(r"^```yaml\n(.+?)^```$", text(name), re.MULTILINE | re.DOTALL)
    return [re.sub(r"\bimage: [^\s},]+", "image: hello", one) for one in found if one.startswith("kind:")]


def transcript(name: str) -> list[Typed]:
    """All that is typed on a page with what is seen, in the page's order."""
    found = []
    for block in _BLOCK.findall(_FENCE.sub("", text(name))):
        lines = [line.strip() for line in block.splitlines()]
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in itertools.pairwise([*starts, len(lines)]):
            command = lines[start].removeprefix("$ ")
            found.append(Typed(command=command, seen="\n".join(lines[start + 1 : end]).strip("\n")))
    return found


def commands(name: str) -> list[str]:
    """What is typed on a page that shows no answers: lines of indented blocks that begin with a program of ours.

    One that ends in a backslash goes on; remarks behind it (`# …`, `(…)`) are left out.
    """
    blocks = "".join(_BLOCK.findall(_FENCE.sub("", text(name)))).replace("\\\n", " ")
    found = re.findall(r"^ +(orch(?:ctl|-).+?)(?: +[#(].*)?$", blocks, re.MULTILINE)
    return [" ".join(one.split()) for one in found]


def finding(check: str) -> str:
    """What the example of docs/doctor.md says of a check, with `…` for the numbers and files of a machine."""
    (example,) = transcript("doctor.md")
    (line,) = (line for line in example.seen.splitlines() if check in line)
    return re.sub(r"\d\S*(?: s\b)?|(?<!\S)/\S+", "…", line.partition(check)[2])


def shape(said: str) -> str:
    """The same for two runs of the same: `web-1-k7x2m9q4 4s` and `web-1-abcdefgh 12s` are `web-1-ID SPAN`."""
    for pattern, kind in _KINDS:
        said = pattern.sub(kind, said)
    return "\n".join(line.strip() for line in said.splitlines())


def is_seen(expected: str, said: str) -> bool:
    """`expected` is of a page: its `…` stands for anything."""
    lines = shape(expected).splitlines()
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines)
    return re.fullmatch(pattern, shape(said) + "\n") is not None


def check(typed: Typed, said: str, *, passing: str = "") -> None:
    """That this is what the page says. `passing`: lines that are shown or not, as quick as the machine is."""
    expected = typed.seen
    if passing:
        expected, said = (
            "\n".join(line for line in one.splitlines() if not re.search(passing, line)) for one in (expected, said)
        )
    difference = difflib.unified_diff(
        shape(expected).splitlines(), shape(said).splitlines(), "the page", "said", lineterm=""
    )
    assert is_seen(expected, said), "\n".join([f"$ {typed.command}", *difference])


@dataclass(slots=True, kw_only=True)
class Reader:
    """Somebody with a cluster, an own folder, and the page. `left`: what they have not typed yet."""

    local: LocalCluster
    folder: Path
    page: str
    left: list[Typed] = field(init=False)

    def __post_init__(self) -> None:
        self.left = transcript(self.page)
        assert self.left, f"docs/{self.page} has commands"

    def write(self, name: str, manifest: str) -> str:
        """A file that a command of the page names."""
        (self.folder / name).write_text(manifest)
        return name

    def sees(self, command: str, *, code: int = 0, passing: str = "", within_s: float = 0) -> None:
        """Type it, the next time that the page has it; again, for so long, until it shows what the page says.

        The ends of tasks' names are those of this cluster.
        """
        typed = next(one for one in self.left if one.command == command)
        self.left.remove(typed)
        deadline = time.monotonic() + within_s
        said = self._say(command, code)
        while time.monotonic() < deadline and not is_seen(typed.seen, said):
            said = self._say(command, code)
        check(typed, said, passing=passing)

    def _say(self, command: str, code: int) -> str:
        words = _TASK.sub(lambda found: self._task(found[1]), command).split()
        assert words[0] == "orchctl", command
        done = subprocess.run(
            [cluster.ORCHCTL, *words[1:]],
            env=cluster.environment(self.local.plan.config),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}, not {code}: {command}\n{done.stdout}"
        return re.sub(rf" {re.escape(trust.person())} ", " root ", done.stdout)

    def _task(self, beginning: str) -> str:
        live = (one for one in self.local.tasks("") if one.desired_state == pb.DESIRED_STATE_RUNNING)
        return next(one.meta.name for one in live if one.meta.name.startswith(f"{beginning}-"))
