"""Planes for tests: of each kind of cluster, and a kernel that takes what they say."""

import re

from agent.core.network import Attachment
from agent.core.plane import Plane, Transaction
from protos.orch.v1 import dispatcher_pb2 as dpb

NETWORK = dpb.NodeNetwork(cluster_range="10.112.0.0/16", subnet="10.112.1.0/24", service_range="10.113.0.0/16")
BOTH = dpb.NodeNetwork(
    cluster_range="10.112.0.0/16",
    subnet="10.112.1.0/24",
    service_range="10.113.0.0/16",
    cluster_range6="fd00:112::/48",
    subnet6="fd00:112:0:1::/64",
    service_range6="fd00:113::/112",
)
ALONE = dpb.NodeNetwork(cluster_range6="fd00:112::/48", subnet6="fd00:112:0:1::/64", service_range6="fd00:113::/112")


def plane(
    *services: dpb.NetworkService, attached: tuple[Attachment, ...] = (), network: dpb.NodeNetwork = NETWORK
) -> Plane:
    made = Plane()
    made.configure(network)
    for attachment in attached:
        made.attach(attachment)
    made.serve({each.id: each for each in services})
    return made


class Kernel:
    """A table that does what nft is told, and refuses what nft would refuse."""

    def __init__(self) -> None:
        self.elements: dict[tuple[str, str], str] = {}
        self.chains: dict[str, list[str]] = {}
        self.sets: set[str] = set()

    def take(self, transaction: Transaction) -> None:
        lines = transaction.text.splitlines()
        if transaction.whole:
            self.__init__()  # type: ignore[misc]  # as if there had been nothing
            fixed = lines.index("}") + 1
            self.sets.update(re.findall(r"^  (?:set|map) (\S+) ", "\n".join(lines[:fixed]), re.MULTILINE))
            lines = lines[fixed:]
        for line in lines:
            self._do(line)

    def _do(self, line: str) -> None:  # noqa: C901 - one case a command
        verb, what, _, _, name, *rest = line.split(" ", 5)
        match verb, what:
            case "add", "set":
                assert name not in self.sets, line
                self.sets.add(name)
            case "delete", "set":
                assert not any(f"@{name} " in rule for rules in self.chains.values() for rule in rules), line
                assert not any(held == name for held, _ in self.elements), line
                self.sets.remove(name)
            case "add", "chain":
                assert name not in self.chains, line
                self.chains[name] = []
            case "flush", "chain":
                self.chains[name].clear()
            case "delete", "chain":
                assert not any(value == f"goto {name}" for value in self.elements.values()), line
                assert self.chains.pop(name) == [], line
            case "add", "rule":
                for used in re.findall(r"@(\S+)", rest[0]):
                    assert used in self.sets, line
                self.chains[name].append(rest[0])
            case "add", "element":
                assert name in self.sets, line
                for entry in rest[0].strip("{ }").split(", "):
                    key, _, value = entry.partition(" : ")
                    assert self.elements.setdefault((name, key), value) == value, line
                    assert not value.startswith("goto ") or value.removeprefix("goto ") in self.chains, line
            case "delete", "element":
                for key in rest[0].strip("{ }").split(", "):
                    del self.elements[name, key]
            case _:
                raise AssertionError(line)
