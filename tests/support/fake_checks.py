"""The ports of the checks of the network and of what a node uses, for agents without a machine."""

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
