"""`python -m agent`, and the program `orch-agent`. First of all it opens the sockets for names; see `agent.early`."""

import gc
import sys
from collections.abc import Sequence

from agent import early
from protos import starting
from telemetry import lean


def main() -> None:
    """Run an agent until it is told to end."""
    starting.configured("orch-agent", sys.argv[1:], _translated)
    names = early.opened(sys.argv[1:])
    lean.load()
    gc.disable()  # modules are no garbage: looking for some while they are loaded takes a fifth of the time
    from agent import main as agent  # it takes half a second, which questions can wait for

    gc.enable()
    agent.main(early_names=names)


def _translated(path: str, text: bytes, others: Sequence[str]) -> Sequence[str]:
    from agent import options
    from manifests import configuration
    from manifests.documents import Source

    return configuration.arguments(options.parser(), Source(name=path, text=text), others)


if __name__ == "__main__":
    main()
