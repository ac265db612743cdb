"""The verbs of `orchctl`, one a module. Each holds its click command as `command`."""
