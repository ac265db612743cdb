"""Expected texts that live in files beside the tests, so that a change is read as a diff.

`ORCH_GOLDEN=write pytest …` writes them anew; look at the diff before you commit it.
"""

import os
from pathlib import Path


def check(path: Path, text: str) -> None:
    """Fails when the text is not what the file holds."""
    if os.environ.get("ORCH_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing; write it with ORCH_GOLDEN=write"
    expected = path.read_text(encoding="utf-8")
    assert text == expected, f"{path.name} has changed; if it should, ORCH_GOLDEN=write writes it anew"
