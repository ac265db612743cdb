"""The tour that `make demo` gives: a service on three nodes, what can break, and nothing left at the end.

Two rules. Every step prints the command that a person would type, runs that very command, and then looks for itself
whether what the step claims is so. Whatever ends the tour, the cluster ends with it: the demo is its owner.
"""
