"""Which addresses and host ports of this node are given to whom.

Two rules: nothing is given twice, and an address that was freed is the last to be given again, so that a packet or a
cached answer meant for a task that has gone reaches nobody rather than a stranger.
"""

import ipaddress


class AddressPool:
    """The addresses of the node's subnet. The first one is the gateway's."""

    def __init__(self, subnet: str) -> None:
        self.subnet = ipaddress.IPv4Network(subnet)
        if self.subnet.num_addresses < 4:
            raise ValueError(f"the subnet {subnet} has no room for tasks; it needs a prefix of /30 or shorter")
        self.gateway = str(self.subnet[1])
        self._owner: dict[str, str] = {}
        self._freed: dict[str, None] = {}  # in the order in which they were freed
        self._next = 2

    def __len__(self) -> int:
        return len(self._owner)

    def resume(self, last: str) -> None:
        """Go on behind the address that an earlier pool gave last, since those below it may have just been freed.
        Comes before the first `claim`.
        """
        if not last or ipaddress.IPv4Address(last) not in self.subnet:
            return
        number, end = int(ipaddress.IPv4Address(last)) - int(self.subnet.network_address), self.subnet.num_addresses - 1
        self._freed = {str(self.subnet[each]): None for each in (*range(number + 1, end), *range(2, number + 1))}
        self._next = end

    def take(self, task_id: str) -> str | None:
        """An address for the task; None when all are taken."""
        while self._next < self.subnet.num_addresses - 1:
            address = str(self.subnet[self._next])
            self._next += 1
            if address not in self._owner and address not in self._freed:
                self._owner[address] = task_id
                return address
        if not self._freed:
            return None
        address = next(iter(self._freed))
        del self._freed[address]
        self._owner[address] = task_id
        return address

    def claim(self, address: str, task_id: str) -> bool:
        """Note that the task has this address already. False when another one does, or it is not of this subnet."""
        usable = ipaddress.IPv4Address(address) in self.subnet and address != self.gateway
        if not usable or self._owner.setdefault(address, task_id) != task_id:
            return False
        self._freed.pop(address, None)
        # What lies below may have been in use not long ago: fresh addresses are looked for above, these come later.
        number = int(ipaddress.IPv4Address(address)) - int(self.subnet.network_address)
        for below in range(self._next, number):
            if str(self.subnet[below]) not in self._owner:
                self._freed[str(self.subnet[below])] = None
        self._next = max(self._next, number + 1)
        return True

    def free(self, address: str, task_id: str) -> None:
        """Take the address back. Nothing happens when the task does not hold it."""
        if self._owner.get(address) == task_id:
            del self._owner[address]
            self._freed[address] = None


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
