"""The doctor that a running agent asks about its own machine.

The rule: a process of its own looks. Some of what it tries forks, which a process with gRPC's threads must not do.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import Temporary
from protos import findings
from protos.orch.v1 import control_pb2 as cpb

BOUND_S = 45.0
ROOT = Path(__file__).parents[2]


class OwnMachine:
    """A Doctor. `options`: what `agent.doctor` has to know of the agent."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options

    async def examine(self) -> list[cpb.Finding]:
        command = [sys.executable, "-m", "agent.doctor", "--output=json", *self._options]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise Temporary(f"it cannot look at its machine: {error}", reason="DoctorFailed") from error
        try:
            async with asyncio.timeout(BOUND_S):
                said, complaint = await process.communicate()
        except TimeoutError as error:
            raise Temporary(f"its look at its machine took more than {BOUND_S:g} s", reason="DoctorFailed") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read(said, complaint)


def _read(said: bytes, complaint: bytes) -> list[cpb.Finding]:
    try:
        return findings.of_documents(json.loads(said))
    except (ValueError, KeyError, TypeError) as error:
        last = (complaint.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise Temporary(f"it cannot look at its machine: {last}", reason="DoctorFailed") from error
