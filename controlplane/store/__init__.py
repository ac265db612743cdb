"""Desired state on etcd: the store protocol, its two implementations, and what reads and writes objects through it."""
