"""What travels beside the messages of `Control`: the names of its metadata."""

ACTOR = "orch-actor"
"""Of a request: who makes it."""
ERROR = "orch-error-bin"
"""Of an answer: the `Error` that a call failed with."""
