"""`python -m controlplane`, and the program `orch-controlplane`: one instance of the control plane."""

import sys
from collections.abc import Sequence

from protos import starting
from telemetry import lean


def main() -> int:
    """The exit code."""
    starting.configured("orch-controlplane", sys.argv[1:], _translated)
    lean.load()
    from controlplane import main as instance

    return instance.main()


def _translated(path: str, text: bytes, others: Sequence[str]) -> Sequence[str]:
    from controlplane import arguments
    from manifests import configuration
    from manifests.documents import Source

    return configuration.arguments(arguments.parser(), Source(name=path, text=text), others)


if __name__ == "__main__":
    sys.exit(main())
