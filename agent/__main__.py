"""`python -m agent`, and the program `orch-agent`. First of all it opens the sockets for names; see `agent.early`."""

import sys

from agent import early


def main() -> None:
    """Run an agent until it is told to end."""
    names = early.opened(sys.argv[1:])
    from agent import main as agent  # it takes most of a second, which questions can wait for

    agent.main(early_names=names)


if __name__ == "__main__":
    main()
