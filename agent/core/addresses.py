"""Which addresses and host ports of this node are given to whom.

Two rules: nothing is given twice, and an address that was freed is the last to be given again, so that a packet or a
cached answer meant for a task that has gone reaches nobody rather than a stranger.
"""

import ipaddress
from typing import Final

MOST_ADDRESSES: Final = 1 << 14
"""Of a larger subnet no more are used: they are sixteen times what a node has tasks, so that a freed one rests."""


class AddressPool:
    """The addresses of the node's subnet, of either family. The first one is the gateway's."""

    def __init__(self, subnet: str) -> None:
        self.subnet = ipaddress.ip_network(subnet)
        if self.subnet.num_addresses < 4:
            longest = self.subnet.max_prefixlen - 2
            raise ValueError(f"the subnet {subnet} has no room for tasks; it needs a prefix of /{longest} or shorter")
        self._owner: dict[str, str] = {}
        self._freed: dict[int, None] = {}  # numbers in the subnet, in the order in which they were freed
        self._next, self._end = 2, min(self.subnet.num_addresses - 1, MOST_ADDRESSES)

    def __len__(self) -> int:
        return len(self._owner)

    def resume(self, last: str) -> None:
        """Go on behind the address that an earlier pool gave last, since those below it may have just been freed.
        Comes before the first `claim`.
        """
        number = self._number(last) if last else 0
        if not 2 <= number < self._end:
            return
        self._freed = dict.fromkeys((*range(number + 1, self._end), *range(2, number + 1)))
        self._next = self._end

    def take(self, task_id: str) -> str | None:
        """An address for the task; None when all are taken."""
        while self._next < self._end:
            number = self._next
            self._next += 1
            if number not in self._freed and self._text(number) not in self._owner:
                return self._give(number, task_id)
        if not self._freed:
            return None
        number = next(iter(self._freed))
        del self._freed[number]
        return self._give(number, task_id)

    def claim(self, address: str, task_id: str) -> bool:
        """Note that the task has this address already. False when another one does, or it is not of this subnet."""
        number = self._number(address)
        if not 2 <= number < self._end or self._owner.setdefault(address, task_id) != task_id:
            return False
        self._freed.pop(number, None)
        # What lies below may have been in use not long ago: fresh addresses are looked for above, these come later.
        for below in range(self._next, number):
            if self._text(below) not in self._owner:
                self._freed[below] = None
        self._next = max(self._next, number + 1)
        return True

    def free(self, address: str, task_id: str) -> None:
        """Take the address back. Nothing happens when the task does not hold it."""
        if self._owner.get(address) == task_id:
            del self._owner[address]
            self._freed[self._number(address)] = None

    def _give(self, number: int, task_id: str) -> str:
        address = self._text(number)
        self._owner[address] = task_id
        return address

    def _number(self, address: str) -> int:
        """Its place in the subnet; one that is not of the subnet has none, which is 0."""
        given = ipaddress.ip_address(address)
        return int(given) - int(self.subnet.network_address) if given in self.subnet else 0

    def _text(self, number: int) -> str:
        return str(self.subnet[number])


class PortTable:
    """The published ports of this node."""

    def __init__(self) -> None:
        self._owner: dict[tuple[int, int], str] = {}

    def take(self, ports: list[tuple[int, int]], task_id: str) -> tuple[int, str] | None:
        """Give (protocol, port) pairs to the task, all or none; else the first one that is taken, and by whom."""
        for key in ports:
            owner = self._owner.get(key, task_id)
            if owner != task_id:
                return key[1], owner
        self._owner.update(dict.fromkeys(ports, task_id))
        return None

    def free(self, task_id: str) -> None:
        """Take back every port of the task."""
        self._owner = {key: owner for key, owner in self._owner.items() if owner != task_id}
