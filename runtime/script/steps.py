"""Writing down system calls for `machine` to execute, by their names and as the manual pages have them."""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from runtime.script import machine

_NUMBERS: Final = {
    # arch/x86/entry/syscalls/syscall_64.tbl
    "read": 0,
    "write": 1,
    "poll": 7,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "ioctl": 16,
    "dup2": 33,
    "socket": 41,
    "clone": 56,
    "execve": 59,
    "chdir": 80,
    "fchdir": 81,
    "fchown": 93,
    "umask": 95,
    "setsid": 112,
    "setgroups": 116,
    "setresuid": 117,
    "setresgid": 119,
    "capset": 126,
    "pivot_root": 155,
    "prctl": 157,
    "mount": 165,
    "umount2": 166,
    "sethostname": 170,
    "setdomainname": 171,
    "exit_group": 231,
    "openat": 257,
    "unshare": 272,
    "prlimit64": 302,
    "setns": 308,
    "seccomp": 317,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_OPENING: Final = frozenset({"openat", "openat2", "socket", "open_tree", "fsopen", "fsmount"})
_INDIRECT: Final = (1 << 16, 1 << 17, 1 << 18)
_ABSENT_SHIFT: Final = 24
_LEAVE: Final = 1 << 32
_MAX_STEPS: Final = (machine.DATA_AT - machine.STEPS_AT) // machine.STEP_BYTES
_MAX_CELLS: Final = (machine.STEPS_AT - machine.CELLS_AT) // 8
_MAX_DATA_BYTES: Final = machine.BYTES - machine.DATA_AT
_UNUSED: Final = (0, 0, 0, 0, 0, 0)
_NOBODYS: Final = 0
_ZEROS: Final = tuple(bytes(8 - number) for number in range(8))


class TooLongError(Exception):
    """The list, or what it refers to, does not fit into the memory."""


class Cell:
    """A place for the answer of one call, which later ones use; or for a descriptor that is given."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True, slots=True)
class At:
    """An address in the memory."""

    address: int


Argument: TypeAlias = int | str | bytes | Cell | At
"""A number; a text or bytes, whose address is meant; what is in a cell; an address."""


class Script:
    """A list that is being written, for a memory at a known address. Parts of it can be executed before it is whole."""

    def __init__(self, address: int) -> None:
        self._cells_at = address + machine.CELLS_AT
        self._data_at = address + machine.DATA_AT
        self._words: list[int] = []
        self._cells = 1  # the first takes what nobody asks for
        self._data = bytearray()
        self._places: dict[str | bytes, int] = {}
        self._taken = (0, 0, 0)  # cells, words and bytes of data that went out with earlier parts
        self.names: list[str] = []
        self.opened: list[Cell] = []
        """Of the steps that open a descriptor."""

    def given(self) -> Cell:
        """A descriptor that whoever executes the list has put there, in the order of these calls."""
        assert len(self._words) == self._taken[1], "a descriptor that is given after a part's first step"
        return self.cell()

    @property
    def next_cell(self) -> int:
        """The number of the cell that is taken next."""
        return self._cells

    def cell(self) -> Cell:
        """A place for a number."""
        number = self._cells
        self._cells = number + 1
        return Cell(number)

    def call(self, name: str, *arguments: Argument, absent: int = 0, leave: bool = False) -> None:
        """A step. `absent`: where there is no such file, go on so many steps later. `leave`: see `machine`."""
        self._write(name, arguments, _NOBODYS, absent, leave=leave)

    def answer(self, name: str, *arguments: Argument, absent: int = 0) -> Cell:
        """A step whose answer is used later."""
        cell = self.cell()
        self._write(name, arguments, cell.number, absent)
        if name in _OPENING:
            self.opened.append(cell)
        return cell

    def repeat(self, name: str, rows: Sequence[tuple[int, ...]]) -> None:
        """A step for each row of arguments, which are numbers all."""
        first = _NUMBERS[name]
        for row in rows:
            self._words += (first, *row, *_UNUSED[len(row) :], self._cells_at)
            self.names.append(name)

    def place(self, data: str | bytes) -> At:
        """Where in the memory these bytes will be, on a multiple of eight, and zeros after them."""
        known = self._places.get(data)
        if known is None:
            known = self._places[data] = self._data_at + len(self._data)
            encoded = os.fsencode(data)
            self._data += encoded + _ZEROS[len(encoded) & 7]
        return At(known)

    def room(self, size_bytes: int) -> At:
        """So much of the memory, all zeros, for a call to write into."""
        made = At(self._data_at + len(self._data))
        self._data += bytes((size_bytes + 7) & ~7)
        return made

    def strings(self, items: list[bytes]) -> At:
        """An array of strings that ends with a null, as execve(2) takes it."""
        addresses = [self.place(item).address for item in items]
        return self.place(struct.pack(f"<{len(items) + 1}Q", *addresses, 0))

    def cell_address(self, cell: Cell) -> At:
        """Where a cell is, for calls that write an answer of their own."""
        return At(self._cells_at + 8 * cell.number)

    def part(self) -> tuple[machine.Piece, ...]:
        """What was written since the last part: cells, steps and data for a `machine.Memory`; raises TooLongError."""
        if len(self.names) > _MAX_STEPS or self._cells > _MAX_CELLS or len(self._data) > _MAX_DATA_BYTES:
            raise TooLongError(f"{len(self.names)} steps, {self._cells} cells, {len(self._data)} bytes")
        cells, words, data = self._taken
        self._taken = (self._cells, len(self._words), len(self._data))
        steps = self._words[words:]
        return (
            (machine.CELLS_AT + 8 * cells, struct.pack("<Q", machine.UNSET) * (self._cells - cells)),
            (machine.STEPS_AT + 8 * words, struct.pack(f"<{len(steps)}q", *steps)),
            (machine.DATA_AT + data, bytes(self._data[data:])),
        )

    def _write(
        self, name: str, arguments: tuple[Argument, ...], answer: int, absent: int, *, leave: bool = False
    ) -> None:
        first = _NUMBERS[name] | absent << _ABSENT_SHIFT
        if leave:
            first |= _LEAVE
        words = self._words
        begin = len(words)
        words.append(0)
        # A container has some 180 steps: the types are compared in the order of how frequent they are.
        for position, argument in enumerate(arguments):
            if type(argument) is int:
                words.append(argument)
            elif type(argument) is Cell:
                first |= _INDIRECT[position]
                words.append(self._cells_at + 8 * argument.number)
            elif type(argument) is str or type(argument) is bytes:
                words.append(self._places.get(argument) or self.place(argument).address)
            elif type(argument) is At:
                words.append(argument.address)
            else:
                assert isinstance(argument, int), f"{name}: {argument!r}"  # a flag with a name
                words.append(argument)
        words[begin] = first
        words += _UNUSED[len(arguments) :]
        words.append(self._cells_at + 8 * answer)
        self.names.append(name)
