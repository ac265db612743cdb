"""The node's half of the cluster: it keeps the containers of its node equal to what the leader assigned."""
