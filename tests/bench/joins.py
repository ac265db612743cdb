"""How long a machine takes to become a node: from the command until the agent has its session, and of that the command
and the certificate alone. And what the processors worked for it beside the control plane, which is the same on a busy
machine.

Both are against a cluster that runs on the same machine. systemd is left out, which takes some tenths of a second more
to enable a service; see `_joins.py`.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from tests.bench import _joins
from tests.bench.measure import Case

ROUNDS = 9
MARKS = {"node": (1.0, 1.0), "command": (1.0, 0.5), "certificate": (0.25, 0.15)}
"""Of the time, and of what is worked."""


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """The cluster is up inside the block."""
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as folder:
        command = [*_joins.NAMESPACES, sys.executable, "-m", "tests.bench._joins", folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as joins:
            yield [case for what, marks in MARKS.items() for case in _cases(joins, what, *marks)]
            assert joins.stdin is not None
            joins.stdin.close()
            joins.wait(60)


def _cases(joins: "subprocess.Popen[str]", what: str, mark: float, worked_mark: float) -> Sequence[Case]:
    """The time, and what was worked in the same rounds."""
    worked: list[float] = []

    def measure() -> float:
        assert joins.stdin is not None
        assert joins.stdout is not None
        joins.stdin.write(f"{what}\n")
        joins.stdin.flush()
        took_s, worked_s = map(float, joins.stdout.readline().split())
        worked.append(worked_s)
        return took_s

    return [
        Case(name=f"joins.{what}", unit="s", ours=measure, peer=None, peer_name="", rounds=ROUNDS, mark=mark),
        Case(
            name=f"joins.{what}_worked",
            unit="s",
            ours=lambda: worked.pop(0),
            peer=None,
            peer_name="",
            rounds=ROUNDS,
            mark=worked_mark,
        ),
    ]
