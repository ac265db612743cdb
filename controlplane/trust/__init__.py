"""Who belongs to the cluster: what the store keeps of it, the door through which others come in, and the tokens."""
