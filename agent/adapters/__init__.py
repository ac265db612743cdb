"""The real world behind the agent's ports."""
