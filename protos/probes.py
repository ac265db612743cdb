"""A probe in words for people, the same ones on every side: they look for the line in their manifest."""

import shlex

from protos.orch.v1 import objects_pb2 as pb

LONGEST_COMMAND = 80
"""Characters of a command that are told."""


def describe(probe: pb.Probe) -> str:
    """`HTTP GET /healthz on port 8080`."""
    if probe.HasField("http"):
        scheme = "HTTPS" if probe.http.tls else "HTTP"
        return f"{scheme} GET {probe.http.path or '/'} on port {probe.http.port}"
    if probe.HasField("tcp"):
        return f"TCP connection to port {probe.tcp.port}"
    if probe.HasField("grpc"):
        about = f" of {probe.grpc.service}" if probe.grpc.service else ""
        return f"gRPC health{about} on port {probe.grpc.port}"
    command = shlex.join(probe.exec.command)
    return f"command {command if len(command) <= LONGEST_COMMAND else command[: LONGEST_COMMAND - 1] + '…'}"
