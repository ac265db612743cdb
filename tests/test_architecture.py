"""The packages import each other as the design says, and generated code is what the protos say."""

import subprocess
import sys
from pathlib import Path

from protos import generate

ROOT = Path(__file__).parent.parent


def test_packages_import_only_what_the_layers_allow() -> None:
    """The contracts stand in pyproject.toml, each with its name for what it protects."""
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"move the code, or the import behind a port:\n{result.stdout}{result.stderr}"


def test_generated_code_is_what_the_protos_say() -> None:
    """Committed generated code lets people read and install the project without a protoc."""
    stale = generate.stale()
    assert not stale, f"run make protos and commit: {', '.join(str(path) for path in stale)}"
