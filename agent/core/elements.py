"""Who contributes what to the node's nftables table, and the difference since the kernel was told last.

Two rules: whatever somebody contributes replaces all that they contributed before; and an element belongs to whoever
contributed it last, so that an address that has moved from one service to another is not taken away by the first.
"""

import collections
from collections.abc import Iterator

from agent.core import firewall
from agent.core.firewall import NOTHING, Element, Part


class Elements:
    """The table but for its fixed part."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._now: dict[Element, tuple[str, str]] = {}  # whose it is, and its value
        self._chains: dict[str, tuple[str, ...]] = {}
        self._sets: collections.Counter[str] = collections.Counter()
        self._balancers: set[str] = set()
        # As the kernel has it, where that may differ; None: not at all.
        self._elements_before: dict[Element, str | None] = {}
        self._chains_before: dict[str, tuple[str, ...] | None] = {}
        self._sets_before: dict[str, bool] = {}
        self._balancers_before: set[str] = set()
        self._udp_gone: set[str] = set()
        self._udp_opened: set[int] = set()

    def put(self, owner: str, part: Part) -> None:
        """What the owner contributes from now on."""
        before = self._parts.get(owner, NOTHING)
        self._put_elements(owner, before, part)
        self._put_chains(before, part)
        for name in part.sets - before.sets:
            self._sets_before.setdefault(name, self._sets[name] > 0)
            self._sets[name] += 1
        for name in before.sets - part.sets:
            self._sets_before.setdefault(name, self._sets[name] > 0)
            self._sets[name] -= 1
        self._balancers |= part.balancers
        self._udp_gone |= {address for address, _ in before.udp_targets - part.udp_targets}
        self._udp_opened |= part.udp_ports - before.udp_ports
        if part == NOTHING:
            self._parts.pop(owner, None)
        else:
            self._parts[owner] = part

    def difference(self) -> str:
        """What brings the kernel from what it was told last to now. Counts as told."""
        lines = [*self._removals(), *self._additions()]
        self._told()
        return "".join(f"{line}\n" for line in lines)

    def everything(self) -> str:
        """What fills a table that has only its fixed part. Counts as told."""
        self._balancers = {name for part in self._parts.values() for name in part.balancers}
        lines = [firewall.address_set(name) for name in sorted(+self._sets)]
        for name in sorted(self._balancers):
            lines += firewall.chain(name, [firewall.balancer_rule(name)], there=False)
        for name, rules in self._chains.items():
            lines += firewall.chain(name, rules, there=False)
        lines += firewall.elements("add", ((key, value) for key, (_, value) in self._now.items()))
        self._told()
        return "".join(f"{line}\n" for line in lines)

    def take_udp(self) -> tuple[frozenset[str], frozenset[int]]:
        """Addresses that UDP is not translated to any more, and ports of the node that are now, since the last call."""
        gone, opened = frozenset(self._udp_gone), frozenset(self._udp_opened)
        self._udp_gone.clear()
        self._udp_opened.clear()
        return gone, opened

    def _put_elements(self, owner: str, before: Part, part: Part) -> None:
        for key in before.elements.keys() - part.elements.keys():
            held = self._now.get(key)
            if held is not None and held[0] == owner:
                self._elements_before.setdefault(key, held[1])
                del self._now[key]
        for key, value in part.elements.items():
            held = self._now.get(key)
            if held is None or held[1] != value:
                self._elements_before.setdefault(key, held[1] if held is not None else None)
            if held is None or held != (owner, value):
                self._now[key] = (owner, value)

    def _put_chains(self, before: Part, part: Part) -> None:
        for name in before.chains.keys() - part.chains.keys():
            self._chains_before.setdefault(name, self._chains.pop(name))
        for name, rules in part.chains.items():
            if self._chains.get(name) != rules:
                self._chains_before.setdefault(name, self._chains.get(name))
                self._chains[name] = rules

    def _removals(self) -> Iterator[str]:
        """What refers to something goes before it."""
        changed = ((key, value) for key, value in self._elements_before.items() if value is not None)
        gone = [(key, None) for key, value in changed if self._value(key) != value]
        yield from firewall.elements("delete", gone)
        for name, rules in self._chains_before.items():
            if rules is not None and name not in self._chains:
                yield from firewall.no_chain(name)
            elif rules is not None and rules != self._chains[name]:
                yield from firewall.chain(name, (), there=True)  # it lets go of its sets
        for name, there in self._sets_before.items():
            if there and not self._sets[name]:
                yield firewall.no_set(name)

    def _additions(self) -> Iterator[str]:
        for name, there in self._sets_before.items():
            if self._sets[name] and not there:
                yield firewall.address_set(name)
        for name in sorted(self._balancers - self._balancers_before):
            yield from firewall.chain(name, [firewall.balancer_rule(name)], there=False)
        for name, rules in self._chains_before.items():
            if name in self._chains and self._chains[name] != rules:
                yield from firewall.chain(name, self._chains[name], there=rules is not None)
        yield from firewall.elements("add", self._added())

    def _added(self) -> Iterator[tuple[Element, str]]:
        for key, before in self._elements_before.items():
            value = self._value(key)
            if value is not None and value != before:
                yield key, value

    def _value(self, key: Element) -> str | None:
        held = self._now.get(key)
        return held[1] if held is not None else None

    def _told(self) -> None:
        self._elements_before.clear()
        self._chains_before.clear()
        self._sets_before.clear()
        self._balancers_before = set(self._balancers)
