"""Who asks, for the history of rollouts: `user@machine`, as this machine says.

The rule: it proves nothing, and nothing depends on it; it helps people to remember.
"""

import getpass
import platform


def name() -> str:
    """Such as `ann@laptop`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, in a container
        user = "somebody"
    return f"{user}@{platform.node() or 'somewhere'}"
