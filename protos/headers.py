"""What travels beside the messages of `Control`: the names of its metadata."""

ACTOR = "orch-actor"
"""Of a request: who makes it."""
SERVERS = "orch-servers"
"""Of a request: the control planes that the caller knows, with commas between; of an answer: those that there are, when
they are others."""
ERROR = "orch-error-bin"
"""Of an answer: the `Error` that a call failed with."""
