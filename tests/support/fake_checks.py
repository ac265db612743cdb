"""The ports of the checks of the network and of what a node uses, for agents without a machine."""

import contextlib
from collections.abc import AsyncIterator

from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb


class FakeChecks:
    """Finds what a test has put there, and notes what it was asked."""

    def __init__(self) -> None:
        self.findings: list[cpb.NetworkFinding] = []
        self.asked: list[dpb.NetworkCheckRequest] = []

    async def run(self, request: dpb.NetworkCheckRequest) -> list[cpb.NetworkFinding]:
        self.asked.append(request)
        return self.findings


class FakeMeter:
    """Tells what a test has put there, and notes what it was asked."""

    def __init__(self) -> None:
        self.counters = dpb.NodeCounters()
        self.asked: list[dpb.NodeUsageRequest] = []

    async def read(self, request: dpb.NodeUsageRequest) -> dpb.NodeCounters:
        self.asked.append(request)
        return self.counters


class FakeDoctor:
    """Finds what a test has put there."""

    def __init__(self) -> None:
        self.findings: list[cpb.Finding] = []

    async def examine(self) -> list[cpb.Finding]:
        return self.findings


class FakeCommits:
    """Every container has changed what a test has put there."""

    def __init__(self) -> None:
        self.offer = cpb.CommitOffer()
        self.blobs: dict[str, bytes] = {}

    @contextlib.asynccontextmanager
    async def taken(self, request: dpb.TaskCommitRequest) -> "AsyncIterator[FakeCommits]":
        self.offer.task = request.task_id
        yield self

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        yield self.blobs[digest]
