"""Takes the agent's part out of a machine's network, when the machine is to be a node no more.

    python -m agent.leave

One rule: it is run after the agent has ended and its tasks are gone; what is not the agent's is left alone.
"""

import sys

from agent.adapters import network


def main() -> None:
    """Remove the nftables table, the links, the routes and the device."""
    try:
        network.leave()
    except OSError as error:
        sys.exit(f"orch-agent: the network was not cleaned up: {error}")


if __name__ == "__main__":
    main()
