"""One verb a file: its flags, what it takes, and `run`, which returns the exit code.

A verb reads its options, makes one call into the runtime, and prints.
"""
