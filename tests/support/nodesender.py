"""Sends hostile cases from another network: `python -m tests.support.nodesender`, in the namespace of a node."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import nodedoorfuzz
from trust.folder import Folder


def arguments(doors: nodedoorfuzz.Doors, seed: int, numbers: range) -> Sequence[str]:
    """As `main` reads them."""
    folders = {name: str(folder.path) for name, folder in doors.folders.items()}
    said = {name: getattr(doors, name) for name in ("host", "blobs", "page", "node", "reader", "digest", "size_bytes")}
    return [json.dumps({**said, "folders": folders}), str(seed), str(numbers.start), str(numbers.stop)]


async def main(given: Sequence[str]) -> None:
    """Honest callers, the hostile ones, and honest ones again. Raises AssertionError."""
    said, (seed, start, stop) = json.loads(given[0]), map(int, given[1:])
    folders = {name: Folder(Path(path)) for name, path in said.pop("folders").items()}
    doors = nodedoorfuzz.Doors(folders=folders, **said)
    await nodedoorfuzz.honest(doors)
    async with nodedoorfuzz.sender(doors) as sender:
        await nodedoorfuzz.send(seed, range(start, stop), sender)
    await nodedoorfuzz.honest(doors)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
