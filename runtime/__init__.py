"""The container runtime: OCI configurations in, running containers out. Standard library and ctypes only.

`client` is the door for programs that may block, `protocol` for those that may not; README.md tells how a start goes.
"""
