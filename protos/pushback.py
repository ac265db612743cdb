"""Coming back when a server says so: how all our clients take a refusal for asking too much or too often.

The rule: the server says whether coming back helps, and when (`grpc-retry-pushback-ms` beside the refusal, a fact of
gRPC's retry design, gRFC A6); gRPC's core then tries again by itself, a few times, within the deadline of the call.
A negative number means that it does not help.
"""

import json

HEADER = "grpc-retry-pushback-ms"
NEVER = "-1"
ATTEMPTS = 5
"""More than gRPC's core takes is no use."""

_SERVICES = ("orch.v1.Control", "orch.v1.Dispatcher", "orch.v1.Trust")
"""Not `Blobs`: whoever is told there that a node is busy asks another one at once."""

OPTION = (
    "grpc.service_config",
    json.dumps(
        {
            "methodConfig": [
                {
                    "name": [{"service": service} for service in _SERVICES],
                    "retryPolicy": {
                        "maxAttempts": ATTEMPTS,
                        "initialBackoff": "0.2s",
                        "maxBackoff": "5s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
                    },
                }
            ]
        }
    ),
)
"""For every channel to a control plane. The delays are for servers that do not say when."""
