"""System call filters, as programs in real containers meet them."""

import contextlib
import errno
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runtime import capabilities, defaults, errors, seccompprofile
from runtime.seccomp import cache
from tests.integration.runtime.conftest import Box, wait_until
from tests.support import probe

pytestmark = pytest.mark.root

x86_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program is machine code of x86-64")

CLONE_NEWUSER, SIGCHLD = 0x10000000, 17
AF_ALG, AF_VSOCK, SOCK_STREAM, SOCK_SEQPACKET = 38, 40, 1, 5
LATER_THAN_ALL = 9999


def rule(*names: str, action: str = "SCMP_ACT_ALLOW", **fields: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **fields}


def ask(box: Box, name: str, calls: list[list[Any]], profile: Any, **process: Any) -> list[list[Any]]:
    """Make calls in a container with this profile."""
    config = box.config(name, *probe.arguments(calls))
    probe.mount_programs(config)
    config["linux"]["seccomp"] = profile
    config["process"] |= process
    box.create(name, config)
    ended = box.ended(name)
    assert ended.exit_code == 0, (ended, box.output(name))
    return probe.read(box.output(name))


BLOCKED: list[list[Any]] = [
    ["add_key", ["user", "x", "y", 1, -2]],
    ["keyctl", [0, -2, 1]],
    ["request_key", ["user", "x", 0, 0]],
    ["unshare", [CLONE_NEWUSER]],
    ["clone", [CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0]],
    ["setns", [-1, 0]],
    ["mount", ["", "/", "", 0, 0]],
    ["umount2", ["/proc", 0]],
    ["pivot_root", ["/", "/"]],
    ["fsopen", ["nosuchfs", 0]],
    ["open_tree", [-1, "", 0]],
    ["move_mount", [-1, "", -1, "", 0]],
    ["mount_setattr", [-1, "", 0, 0, 0]],
    ["bpf", [99, 0, 0]],
    ["perf_event_open", [0, 0, 0, 0, 0]],
    ["userfaultfd", [1]],
    ["io_uring_setup", [1, 0]],
    ["io_uring_enter", [-1, 0, 0, 0, 0, 0]],
    ["kcmp", [1, 1, 99, 0, 0]],
    ["pidfd_getfd", [-1, 0, 0]],
    ["process_madvise", [-1, 0, 0, 0, 0]],
    ["open_by_handle_at", [-1, 0, 0]],
    ["fanotify_init", [0x80000000, 0]],
    ["quotactl", [-1, "", 0, 0]],
    ["acct", ["/nowhere"]],
    ["swapoff", ["/nowhere"]],
    ["delete_module", ["nosuchmodule", 0]],
    ["kexec_load", [0, 0, 0, -1]],
    ["settimeofday", [0, 1]],
    ["clock_settime", [-1, 0]],
    ["vhangup", []],
    ["syslog", [-1, 0, 0]],
    ["get_mempolicy", [0, 0, 0, 0, 99]],
    ["personality", [0x0040000]],
    ["socket", [AF_ALG, SOCK_SEQPACKET, 0]],
    ["socket", [AF_VSOCK, SOCK_STREAM, 0]],
]


def test_the_default_profile_blocks_what_dockers_does(box: Box) -> None:
    """With EPERM; and it is the filter that does it."""
    seen = ask(box, "a", BLOCKED, seccompprofile.default(defaults.CAPABILITIES))
    assert {
        str(call): answer for call, answer in zip(BLOCKED, seen, strict=True) if answer != ["errno", errno.EPERM]
    } == {}
    every = [name for name, number in capabilities.NUMBERS.items() if capabilities.held().permitted >> number & 1]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), every)
    without = ask(box, "b", BLOCKED, None, capabilities=sets)
    same = [call for call, answer in zip(BLOCKED, without, strict=True) if answer == ["errno", errno.EPERM]]
    assert not same, "the kernel says so by itself: these prove nothing"


def test_what_the_default_profile_says_does_not_exist(box: Box) -> None:
    """C libraries fall back to older calls on ENOSYS only; a later call than all that are known is like that too."""
    calls: list[list[Any]] = [["clone3", [0, 0]], [LATER_THAN_ALL, []]]
    assert ask(box, "a", calls, seccompprofile.default(defaults.CAPABILITIES)) == [["errno", errno.ENOSYS]] * 2


def test_what_the_default_profile_allows(box: Box) -> None:
    """A fork, ordinary sockets, asking for the personality, being traced, calls of yesterday and of 6.10."""
    calls: list[list[Any]] = [
        *(["socket", [family, SOCK_STREAM, 0]] for family in (1, 2, 10)),
        ["personality", [0xFFFFFFFF]],
        ["ptrace", [0, 0, 0, 0]],
        ["chroot", ["/"]],
        ["umask", [0o22]],
        [462, [0, 0, 0]],  # mseal
    ]
    seen = ask(box, "a", calls, seccompprofile.default(defaults.CAPABILITIES))
    assert [answer[0] for answer in seen[:-1]] == ["ok"] * 7
    assert seen[-1] in (["ok", 0], ["errno", errno.ENOSYS], ["errno", errno.EINVAL])


ORDINARY = """
import asyncio, concurrent.futures, multiprocessing, os, signal, socket, sqlite3, subprocess, tempfile, threading, time

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda n: n * n, range(100))) == 328350
assert subprocess.run(["/bin/sh", "-c", "echo hello"], capture_output=True).stdout == b"hello\\n"
with multiprocessing.get_context("fork").Pool(2) as processes:
    assert processes.map(abs, [-1, -2]) == [1, 2]
with multiprocessing.get_context("spawn").Pool(1) as processes:
    assert processes.map(abs, [-3]) == [3]

async def both():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"asked\\n")
    assert await reader.readline() == b"asked\\n"
asyncio.run(both())

with sqlite3.connect(tempfile.mktemp()) as base:
    base.execute("create table t (n)")
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
while not seen:
    time.sleep(0.01)
os.setpriority(os.PRIO_PROCESS, 0, 5)
os.sched_setaffinity(0, os.sched_getaffinity(0))
print("all well")
"""


def test_ordinary_programs_run(box: Box) -> None:
    """Threads, processes made in each way, servers, files with locks, timers: nobody notices the filter."""
    config = box.config("a", os.path.realpath("/usr/bin/python3"), "-I", "-c", ORDINARY)
    probe.mount_programs(config)
    box.create("a", config)
    box.ended("a")
    assert box.output("a").splitlines()[-1] == "all well"


def test_no_way_to_a_release_agent(box: Box) -> None:
    """CVE-2022-0492: on cgroup v1 the kernel starts the file named there, as root of the host."""
    script = (
        "mkdir /tmp/c; unshare -r -m true; mount -t cgroup -o rdma cgroup /tmp/c; mount -t cgroup2 none /tmp/c;"
        " unshare -r -m mount -t cgroup -o memory cgroup /tmp/c; grep /tmp/c /proc/mounts;"
        " for f in $(find / -name release_agent 2>/dev/null); do (echo /x > $f) && echo wrote $f; done; :"
    )
    said = box.run("a", "sh", "-c", script).splitlines()
    assert [line for line in said if "unshare:" in line] == [
        "unshare: unshare(0x10020000): Operation not permitted"
    ] * 2
    assert len([line for line in said if line.startswith("mount: permission denied")]) == 2
    assert not [line for line in said if line.startswith(("cgroup", "none", "wrote"))], said


def test_capabilities_open_their_groups(box: Box) -> None:
    """The profile of a container that may administer lets it unshare; one without CAP_SYS_CHROOT may not chroot."""
    calls: list[list[Any]] = [["unshare", [CLONE_NEWUSER]], ["clone3", [0, 0]], ["chroot", ["/"]]]
    seen = ask(box, "a", calls, seccompprofile.default(["CAP_SYS_ADMIN"]))
    assert seen == [["ok", 0], ["errno", errno.EINVAL], ["errno", errno.EPERM]]


@x86_only
def test_32_bit_calls(box: Box) -> None:
    """Allowed by the default profile, but for sockets by their old name; else they end the process."""
    getpid, socketcall, socket = ["int80", 20, []], ["int80", 102, [1, 0]], ["int80", 359, [1, 1]]
    default = seccompprofile.default(defaults.CAPABILITIES)
    seen = ask(box, "a", [getpid, socketcall, socket], default)
    assert [seen[0][0], seen[1], seen[2][0]] == ["ok", ["errno", errno.ENOSYS], "ok"]
    seen = ask(box, "b", [getpid, ["getpid", []]], default | {"architectures": ["SCMP_ARCH_X86_64"]})
    assert seen[0] == ["signal", signal.SIGSYS]
    assert seen[1][0] == "ok"


@pytest.mark.parametrize(
    ("action", "fields", "expected"),
    [
        ("SCMP_ACT_KILL", {}, ["signal", signal.SIGSYS]),
        ("SCMP_ACT_KILL_THREAD", {}, ["signal", signal.SIGSYS]),
        ("SCMP_ACT_KILL_PROCESS", {}, ["signal", signal.SIGSYS]),
        ("SCMP_ACT_TRAP", {}, ["trapped", signal.SIGSYS]),
        ("SCMP_ACT_ERRNO", {}, ["errno", errno.EPERM]),
        ("SCMP_ACT_ERRNO", {"errnoRet": 77}, ["errno", 77]),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, ["ok", 0]),
        ("SCMP_ACT_TRACE", {"errnoRet": 7}, ["errno", errno.ENOSYS]),  # nobody traces
        ("SCMP_ACT_LOG", {}, ["ok", 0o22]),
        ("SCMP_ACT_ALLOW", {}, ["ok", 0o22]),
    ],
)
def test_actions(box: Box, action: str, fields: dict[str, int], expected: list[Any]) -> None:
    """What a call gets."""
    default = "SCMP_ACT_ERRNO" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    rules = [rule("umask", action=action, **fields)]
    if default == "SCMP_ACT_ERRNO":
        rules += seccompprofile.default(defaults.CAPABILITIES)["syscalls"]
        rules[1]["names"].remove("umask")
    assert ask(box, "a", [["umask", [0o22]]], {"defaultAction": default, "syscalls": rules}) == [expected]


def test_logged_calls_are_in_the_kernels_log(box: Box, request: pytest.FixtureRequest) -> None:
    """SCMP_ACT_LOG always; with the flag also what is answered with an error."""
    if "log" not in Path("/proc/sys/kernel/seccomp/actions_logged").read_text().split():
        pytest.skip("this kernel is set not to log (kernel.seccomp.actions_logged)")
    kernel_log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    request.addfinalizer(lambda: os.close(kernel_log))
    os.lseek(kernel_log, 0, os.SEEK_END)
    flagged = {"flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [rule("umask", action="SCMP_ACT_ERRNO", errnoRet=5)]}
    assert ask(box, "a", [["umask", [0]]], {"defaultAction": "SCMP_ACT_ALLOW", **flagged}) == [["errno", 5]]
    logged = {"syscalls": [rule("getsid", action="SCMP_ACT_LOG")]}
    assert ask(box, "b", [["getsid", [0]]], {"defaultAction": "SCMP_ACT_ALLOW", **logged})[0][0] == "ok"

    seen: set[int] = set()

    def both() -> bool:
        with contextlib.suppress(BlockingIOError):  # no more lines yet
            while line := os.read(kernel_log, 8192).decode(errors="replace"):
                seen.update(int(found[1]) for found in re.finditer(r"type=1326 .* syscall=(\d+) ", line))
        return {probe.number("umask"), probe.number("getsid")} <= seen

    wait_until(both, "both calls are in the kernel's log")


def test_operators(box: Box) -> None:
    """All seven, each on a call of its own: what holds is answered with 99."""

    def when(name: str, operator: str, value: int, value_two: int = 0) -> dict[str, Any]:
        condition = {"index": 0, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": value_two}
        return rule(name, action="SCMP_ACT_ERRNO", errnoRet=99, args=[condition])

    rules = [
        when("umask", "NE", 5),
        when("getpgid", "LT", 5),
        when("getsid", "LE", 5),
        when("sched_getscheduler", "EQ", 5),
        when("sched_get_priority_max", "GE", 5),
        when("sched_get_priority_min", "GT", 5),
        when("sched_getparam", "MASKED_EQ", 6, 4),
    ]
    holds = [(4, 6), (4,), (4, 5), (5,), (5, 6), (6,), (4, 5)]
    calls: list[list[Any]] = [[item["names"][0], [value, 0]] for item in rules for value in (4, 5, 6)]
    seen = ask(box, "a", calls, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    expected = [value in held for held in holds for value in (4, 5, 6)]
    assert [answer == ["errno", 99] for answer in seen] == expected


def status(box: Box, name: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in box.output(name).splitlines() if ":\t" in line)


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("capabilities", [True, False])
def test_the_filter_is_in_force_and_costs_no_privilege(
    box: Box, uid: int, *, no_new_privileges: bool, capabilities: bool
) -> None:
    """Whoever the user is, what was kept for loading the filter is gone when the program runs."""
    config = box.config("a", "cat", "/proc/self/status")
    config["process"] |= {"noNewPrivileges": no_new_privileges, "user": {"uid": uid, "gid": uid}}
    if not capabilities:
        del config["process"]["capabilities"]
    box.create("a", config)
    assert box.ended("a").exit_code == 0, box.output("a")
    seen = status(box, "a")
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", str(int(no_new_privileges)))
    if capabilities or uid:
        expected = 0 if uid else 0xA80425FB
        assert [int(seen[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [expected, expected, 0, 0]


@x86_only
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_no_profile_has_to_allow_what_the_runtime_calls(box: Box, *, no_new_privileges: bool) -> None:
    """The one exec, the capset where a capability had to be kept, and the program's own call: all else would kill."""
    overlay = box.overlay("a")
    probe.tiny_program(Path(overlay["upper"]) / "tiny")
    names = ["execve", "exit"] if no_new_privileges else ["execve", "exit", "capset"]
    for _ in range(25):
        name = "a"
        config = box.config(name, "/tiny")
        config["process"]["noNewPrivileges"] = no_new_privileges
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule(*names)]}
        box.create(name, config, overlay=overlay)
        ended = box.ended(name)
        assert (ended.exit_code, ended.signal) == (7, 0)
        box.delete(name)


def test_exec_has_the_same_filter(box: Box) -> None:
    """A further process too, whatever its own privileges."""
    config = box.config("a", "sleep", "100")
    probe.mount_programs(config)
    box.create("a", config)
    calls: list[list[Any]] = [["keyctl", [0, -2, 1]], ["clone3", [0, 0]], ["umask", [0o22]]]
    with box.monitor("a") as monitor:
        for no_new_privileges in (True, False):
            read, write = os.pipe()
            arguments = {"args": probe.arguments(calls), "noNewPrivileges": no_new_privileges}
            number, _, _ = monitor.execute(arguments, stdio=(read, write, write))
            assert monitor.wait_exec(number, 20) == 0
            said = os.read(read, 10_000).decode()
            os.close(read)
            os.close(write)
            assert probe.read(said) == [["errno", errno.EPERM], ["errno", errno.ENOSYS], ["ok", 0o22]]


def test_flags_are_accepted(box: Box) -> None:
    """All that the specification has."""
    names = ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [f"SECCOMP_FILTER_FLAG_{name}" for name in names],
        "syscalls": [rule("umask", action="SCMP_ACT_ERRNO", errnoRet=9)],
    }
    assert ask(box, "a", [["umask", [0]]], profile) == [["errno", 9]]


def test_what_cannot_be_compiled_is_refused_and_leaves_nothing(box: Box) -> None:
    """The message that libseccomp's refusal becomes comes out of the first process, with its type."""
    config = box.config("a", "true")
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_SHEB"]}
    with pytest.raises(errors.InvalidSpec, match=r"linux.seccomp.architectures\[0\]: SCMP_ARCH_SHEB"):
        box.create("a", config)
    assert {entry.name for entry in Path(box.root).iterdir()} <= {cache.FOLDER}


def test_a_program_is_compiled_once(box: Box) -> None:
    """The second start of a profile of one's own finds it; a damaged file is made again, and the filter holds."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("umask", action="SCMP_ACT_ERRNO", errnoRet=9)]}
    folder = Path(box.root) / cache.FOLDER
    box.launcher.ping()
    known = {entry.name for entry in folder.iterdir()}
    assert len(known) == 1  # the launcher made the default profile's
    calls: list[list[Any]] = [["umask", [0]]]
    assert ask(box, "a", calls, profile) == [["errno", 9]]
    (made,) = [entry for entry in folder.iterdir() if entry.name not in known]
    first = made.stat()
    assert ask(box, "b", calls, profile) == [["errno", 9]]
    assert made.stat().st_ino == first.st_ino
    content = made.read_bytes()
    made.write_bytes(content[:-4] + bytes(4))
    assert ask(box, "c", calls, profile) == [["errno", 9]]
    assert made.read_bytes() == content


def test_what_a_filter_costs(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not judged: starts with the default profile, without, and with one that must be compiled."""
    default = seccompprofile.default(defaults.CAPABILITIES)

    def start_ms(name: str, profile: Any) -> float:
        config = box.config(name, "true")
        config["linux"]["seccomp"] = profile
        begin = time.perf_counter()
        box.create(name, config)
        took = time.perf_counter() - begin
        assert box.ended(name).exit_code == 0
        return took * 1000

    rounds = [
        (
            start_ms(f"d{index}", default),
            start_ms(f"n{index}", None),
            start_ms(f"c{index}", default | {"defaultErrnoRet": 20 + index}),
        )
        for index in range(11)
    ]
    medians = [sorted(column)[5] for column in zip(*rounds, strict=True)]
    with capsys.disabled():
        print(
            "\nstart with the default filter {:.1f} ms, without {:.1f} ms, first of its kind {:.1f} ms".format(*medians)
        )
    assert all(median > 0 for median in medians)
