"""System calls made one by one inside a container, by the host's own Python; and a program that makes almost none.

    calls = [["umask", [0o22]], ["keyctl", [0, -1]]]         names, or numbers; a string argument is passed by address
    probe.read(output)  →  [["ok", 18], ["errno", 1]]        or ["signal", 31], ["trapped", 31]
    calls = [["int80", 20, []]]                              a 32-bit call of x86

Each call is made in a process of its own, as some end theirs.
"""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from runtime.seccomp import library

_SOURCE = r"""
import ctypes, errno, json, mmap, os, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def int80(number, arguments):
    # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; xor edx, edx; int 0x80; pop rbx; ret
    code = bytes.fromhex("5389f889f389d131d2cd805bc3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 3)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result = function(number, *(arguments + [0, 0])[:2])
    return ["errno", -result] if -4096 < result < 0 else ["ok", result]

def call(kind, number, arguments):
    signal.signal(signal.SIGSYS, trapped)
    if kind == "int80":
        return int80(number, arguments)
    values = [item.encode() if isinstance(item, str) else ctypes.c_long(item) for item in arguments]
    result = libc.syscall(ctypes.c_long(number), *values)
    return ["errno", ctypes.get_errno()] if result == -1 else ["ok", result]

def trapped(number, frame):
    os.write(out, json.dumps(["trapped", number]).encode())
    os._exit(0)

answers = []
for kind, number, arguments in json.loads(sys.argv[1]):
    read, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        myself = os.getpid()
        answer = call(kind, number, arguments)
        if os.getpid() != myself:
            os._exit(0)  # the call was a clone, and this is the copy
        os.write(out, json.dumps(answer).encode())
        os._exit(0)
    os.close(out)
    said = os.read(read, 1000)
    os.close(read)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    answers.append(json.loads(said) if said else ["signal", -code])
print(json.dumps(answers))
"""

_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64"}


def arguments(calls: list[list[Any]]) -> list[str]:
    """What to execute in a container with the host's programs."""
    return [
        os.path.realpath("/usr/bin/python3"),
        "-I",
        "-S",
        "-c",
        _SOURCE,
        json.dumps([_numbered(it) for it in calls]),
    ]


def number(name: str) -> int:
    """The number of a call on this machine."""
    found = library.number_of(name, _NATIVE[os.uname().machine])
    assert found is not None, f"{name}: not a call of this machine"
    return found


def _numbered(call: list[Any]) -> list[Any]:
    if call[0] == "int80":
        return call
    name, values = call
    return ["native", name if isinstance(name, int) else number(name), values]


def mount_programs(config: dict[str, Any]) -> None:
    """Bind the host's programs and libraries into the container, read-only."""
    for path in ("/usr", "/lib", "/lib64"):
        if Path(path).exists():
            config["mounts"].append(
                {
                    "destination": path,
                    "type": "bind",
                    "source": os.path.realpath(path),
                    "options": ["rbind", "ro", "nosuid"],
                }
            )


def read(output: str) -> list[list[Any]]:
    """One answer a call."""
    answers: list[list[Any]] = json.loads(output.splitlines()[-1])
    return answers


def tiny_program(path: Path) -> None:
    """A static ELF program for x86-64 whose one system call is exit(7)."""
    assert sys.byteorder == "little"
    code = bytes.fromhex("b83c000000bf070000000f05")  # mov eax, 60; mov edi, 7; syscall
    start = 0x400000
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, 120 + len(code), 120 + len(code), 0x1000)
    path.write_bytes(header + segment + code)
    path.chmod(0o755)
