"""The packages import each other as the design says, and generated code is what the protos say."""

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

from protos import generate
from protos.orch.v1 import control_pb2, dispatcher_pb2, trust_pb2

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


def test_every_call_with_one_answer_has_a_deadline() -> None:
    """Of ours: the server has a longest one of its own, and knows no better than who waits."""
    files = (control_pb2, dispatcher_pb2, trust_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    single = {one.name for service in services for one in service.methods if not one.server_streaming}
    calls = [(path, call) for path in _product() for call in _calls(path, single)]
    assert len(calls) > 20, "this test looks for them in the wrong places"
    without = [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls if not _has_deadline(call)]
    assert not without, f"give these calls a timeout=: {', '.join(without)}"


def _product() -> list[Path]:
    packages = ("agent", "controlplane", "deploy", "orchctl", "trust")
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def _calls(path: Path, methods: Container[str]) -> Iterator[ast.Call]:
    """Those of a stub's methods: `stub.Apply(…)`, `self._stub().FindBlob(…)`, `TrustStub(channel).Renew(…)`."""
    for node in ast.walk(ast.parse(path.read_text())):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in methods and "tub" in ast.unparse(called.value):
            assert isinstance(node, ast.Call)
            yield node


def _has_deadline(call: ast.Call) -> bool:
    return any(keyword.arg == "timeout" for keyword in call.keywords)
