"""Scripts of system calls: each is executed for real, in a process that shares this one's memory."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.script import machine, start, steps
from tests.support import waiting

pytestmark = pytest.mark.skipif(not machine.SUPPORTED, reason="the machine code is x86-64's")

MEMORY = machine.Memory() if machine.SUPPORTED else None
HERE = -100  # AT_FDCWD


def execute(write: Callable[[steps.Script], None], *given: int) -> tuple[int, machine.Memory]:
    """Execute a script; its exit code, and the memory."""
    assert MEMORY is not None
    script = steps.Script(MEMORY.address)
    write(script)
    MEMORY.load(script.part())
    MEMORY.give(given)
    pid = MEMORY.run(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, MEMORY


def test_an_answer_is_used_by_later_steps(tmp_path: Path) -> None:
    """What one call answers is another's argument, in the first, second and third place."""
    path = tmp_path / "file"

    def write(script: steps.Script) -> None:
        file = script.answer("openat", HERE, str(path), os.O_CREAT | os.O_WRONLY, 0o600)
        script.call("write", file, "text", 4)
        count = script.answer("write", file, b"more", 4)
        script.call("write", file, "endless", count)
        script.call("dup2", file, file)
        script.call("exit_group", count)

    code, memory = execute(write)
    assert code == 4
    assert memory.failure() is None
    assert path.read_text() == "textmoreendl"


def test_given_descriptors_are_found_in_their_order(tmp_path: Path) -> None:
    """The first cell is the first descriptor's."""
    files = [os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY) for name in ("first", "second")]

    def write(script: steps.Script) -> None:
        first, second = script.given(), script.given()
        script.call("write", first, "1", 1)
        script.call("write", second, "22", 2)
        script.call("exit_group", 0)

    assert execute(write, *files)[0] == 0
    assert [(tmp_path / name).read_text() for name in ("first", "second")] == ["1", "22"]
    for file in files:
        os.close(file)


def test_the_first_failure_ends_it_and_is_told(tmp_path: Path) -> None:
    """Nothing is done after it, and the memory says which step, and why."""
    path = tmp_path / "never"
    ready: list[steps.Cell] = []

    def write(script: steps.Script) -> None:
        script.call("umask", 0)
        script.call("fchdir", 9999)
        ready.append(script.answer("openat", HERE, str(path), os.O_CREAT | os.O_WRONLY, 0o600))
        script.call("exit_group", 0)

    code, memory = execute(write)
    assert code == 1
    assert memory.failure() == (1, 9)  # EBADF
    assert not memory.was_done(ready[0].number)
    assert not path.exists()


def test_a_part_is_executed_before_the_next_is_written(tmp_path: Path) -> None:
    """The process waits for the rest, and has what arrived meanwhile, since our descriptors are its own until then."""
    memory = MEMORY
    assert memory is not None
    path = tmp_path / "late"
    script = steps.Script(memory.address)
    wake = script.given()
    early = script.answer("dup2", wake, wake)
    script.call("read", wake, script.room(8), 8)
    script.call("unshare", start.SHARED_FILES)
    memory.load(script.part())
    waker = os.eventfd(0)
    memory.give([waker])
    pid = memory.run(start.SHARED_FILES)
    waiting.until(lambda: memory.cell(early.number) == waker, what="the first part is executed")
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    first = script.next_cell
    cell = script.given()
    script.call("write", cell, "late", 4)
    script.call("close_range", 3, 0xFFFFFFFF, 0)
    script.call("exit_group", early)
    memory.load(script.part())
    memory.give([file], first)
    os.eventfd_write(waker, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == waker
    assert memory.failure() is None
    assert path.read_text() == "late"
    os.close(file)  # it was not closed here by the process, which had left our descriptors
    os.close(waker)


def test_what_is_absent_is_stepped_over(tmp_path: Path) -> None:
    """Only for ENOENT, and only as far as was said."""
    path = tmp_path / "after"

    def write(script: steps.Script) -> None:
        file = script.answer("openat", HERE, str(tmp_path / "absent"), os.O_RDONLY, absent=2)
        script.call("fchdir", file)
        script.call("openat", HERE, str(path), os.O_CREAT | os.O_WRONLY, 0o600)
        script.call("openat", HERE, f"{path}/below", os.O_RDONLY, absent=1)  # ENOTDIR

    code, memory = execute(write)
    assert code == 1
    assert path.exists()
    assert memory.failure() == (3, 20)


def test_a_failure_after_the_mark_is_no_success() -> None:
    """A script is done when its mark was reached and nothing failed later."""
    ready: list[steps.Cell] = []

    def write(script: steps.Script) -> None:
        ready.append(script.answer("umask", 0o022))
        script.call("execve", "/nowhere", 0, 0)

    assert execute(write)[0] == 1
    assert MEMORY is not None
    assert not MEMORY.was_done(ready[0].number)


def test_whoever_clones_ends_and_the_clone_goes_on(tmp_path: Path) -> None:
    """Both share the memory and no stack; the kernel writes the clone's pid into a cell."""
    path = tmp_path / "clone"
    born: list[steps.Cell] = []
    parent_settid, vm, parent = 0x100000, 0x100, 0x8000

    def write(script: steps.Script) -> None:
        born.append(script.cell())
        flags = vm | parent | parent_settid | 17
        script.call("clone", flags, 0, script.cell_address(born[0]), 0, 0, leave=True)
        file = script.answer("openat", HERE, str(path), os.O_CREAT | os.O_WRONLY, 0o600)
        script.call("write", file, "here", 4)
        script.call("exit_group", 7)

    code, memory = execute(write)
    assert code == 0
    pid = memory.cell(born[0].number) & 0xFFFFFFFF
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert path.read_text() == "here"


def test_execute_along_a_path(tmp_path: Path) -> None:
    """The program that is found gets its arguments and variables, and nobody's memory."""
    out = tmp_path / "out"

    def write(script: steps.Script) -> None:
        arguments = script.strings([b"sh", b"-c", f"echo $A >{out}; exit 3".encode()])
        variables = script.strings([b"A=variable"])
        script.call("execve", "/nowhere/sh", arguments, variables, absent=1)
        script.call("execve", "/bin/sh", arguments, variables)

    code, memory = execute(write)
    assert code == 3
    assert memory.failure() is None
    assert out.read_text() == "variable\n"


def test_what_is_equal_is_there_once() -> None:
    """And every structure begins on a word, with zeros after it."""
    script = steps.Script(0)
    first = script.place(b"12345678")
    assert script.place(b"12345678") == first
    second = script.place(b"x")
    assert second.address - first.address == 16
    assert script.strings([b"x"]).address == second.address + 8
    _, data = script.part()[2]
    assert data == b"12345678" + bytes(8) + b"x" + bytes(7) + struct.pack("<QQ", second.address, 0) + bytes(8)


def test_a_script_that_is_too_long_is_refused() -> None:
    """Before anybody executes the part of it that fits."""
    script = steps.Script(0)
    for _ in range(machine.BYTES // machine.STEP_BYTES):
        script.call("umask", 0)
    with pytest.raises(steps.TooLongError):
        script.part()
    script = steps.Script(0)
    script.place(bytes(machine.BYTES))
    with pytest.raises(steps.TooLongError):
        script.part()


def test_the_code_cannot_be_written() -> None:
    """Memory is either written or executed."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    assert not [line for line in maps if "w" in line[1] and "x" in line[1]]
