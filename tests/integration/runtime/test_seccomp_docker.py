"""The default profile beside Docker's, call by call, as both are in force: read back from the kernel, and run.

What is compared is the program of a container's filter, for every number of every architecture, and for the calls whose
arguments decide for the arguments that do. Where the two differ, the table says how and why.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, seccompprofile
from runtime.seccomp import library, newer
from tests.integration.runtime.conftest import Box
from tests.support import seccomp, swarm, tracing
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

NO_CALL = "no-such-call"
NEWER_THAN_DOCKER = "later than this Docker: later ones allow it"

COMMON_NEWS = (
    "cachestat fchmodat2 futex_wake futex_wait futex_requeue statmount listmount mseal setxattrat getxattrat "
    "listxattrat removexattrat "
)
LSM_NEWS = "lsm_get_self_attr lsm_set_self_attr lsm_list_modules "

DIFFERENCES = (
    ("io_uring_setup io_uring_enter io_uring_register", "allow", "EPERM", "many holes; later Docker blocks it too"),
    ("socket", "allow", "EPERM", "AF_ALG and AF_VSOCK; later Docker blocks them too"),
    ("socketcall", "allow", "ENOSYS", "a way around the rule for socket that no filter can see into"),
    ("name_to_handle_at", "EPERM", "allow", "harmless without open_by_handle_at; later Docker allows it"),
    ("pkey_alloc pkey_free pkey_mprotect", "EPERM", "allow", "memory of the process's own; later Docker allows it"),
    ("process_vm_readv process_vm_writev", "EPERM", "allow", "ptrace can do the same; later Docker allows it"),
    ("clock_settime64", "EPERM", "allow", "with CAP_SYS_TIME, as clock_settime; later Docker allows it"),
    (COMMON_NEWS + "map_shadow_stack", "ENOSYS", "allow", NEWER_THAN_DOCKER),
    (COMMON_NEWS, "EPERM", "allow", f"on x32; {NEWER_THAN_DOCKER}"),
    (LSM_NEWS + "set_mempolicy_home_node", "ENOSYS", "EPERM", "it exists, but needs a capability"),
    (LSM_NEWS + "set_mempolicy_home_node", "ENOSYS", "allow", f"with the capability; {NEWER_THAN_DOCKER}"),
    (LSM_NEWS + "set_mempolicy_home_node", "EPERM", "allow", f"on x32; {NEWER_THAN_DOCKER}"),
    (f"open_tree_attr file_getattr file_setattr {NO_CALL}", "EPERM", "ENOSYS", "on x32: runc says so elsewhere only"),
)
EXPLAINED = {(name, docker, ours) for names, docker, ours, _ in DIFFERENCES for name in names.split()}

ADMINISTRATORS = (
    *("SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_TIME", "SYS_NICE", "SYSLOG", "SYS_BOOT", "SYS_PACCT"),
    *("SYS_RAWIO", "SYS_TTY_CONFIG", "DAC_READ_SEARCH"),
)
NEW_NAMESPACES = (1 << 17, *(1 << bit for bit in range(25, 31)), 0x7E020000)
ARGUMENTS: dict[str, tuple[int, ...]] = {
    "socket": tuple(range(64)),
    "personality": (0, 1, 8, 9, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF, 2**64 - 1),
    "clone": (0, 17, 0x3D0F00, *NEW_NAMESPACES, *(17 | flag for flag in NEW_NAMESPACES)),
    "socketcall": tuple(range(24)),
    "ipc": tuple(range(32)),
}
WORDS = {0x7FFF0000: "allow", 0x00050001: "EPERM", 0x00050026: "ENOSYS"}


@pytest.fixture(scope="module")
def docker() -> Iterator[swarm.Swarm]:
    with swarm.running() as daemon:
        yield daemon


def dockers_filter(docker: swarm.Swarm, **host: Any) -> bytes:
    """What Docker puts on a container."""
    asked = {"Image": "hello", "Cmd": ["/bin/sleep", "1000"], "HostConfig": {"NetworkMode": "host", **host}}
    container = docker.ask("POST", "/containers/create", asked)["Id"]
    try:
        docker.ask("POST", f"/containers/{container}/start", {})
        (pid,) = (int(path.parent.name) for path in _cgroup_files() if container in _text(path))
        # The call may return while runc, which has several threads, still executes the program.
        until(lambda: _text(Path(f"/proc/{pid}/comm")) == "sleep\n", what="the program runs")
        (found,) = tracing.filters(pid)
        return found
    finally:
        docker.ask("DELETE", f"/containers/{container}?force=1")


def _cgroup_files() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*/cgroup")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return ""


def our_filter(box: Box, capabilities: list[str]) -> bytes:
    config = box.config("a", "sleep", "1000")
    config["linux"]["seccomp"] = seccompprofile.default(capabilities)
    (found,) = tracing.filters(box.create("a", config)["pid"])
    return found


def name_of(architecture: str, number: int) -> str:
    late = {value: name for name, value in newer.NUMBERS.items()}
    return library.name_of(number, architecture) or late.get(number, NO_CALL)


def differences(docker: bytes, ours: bytes) -> set[tuple[str, str, str]]:
    """(call, Docker's answer, ours), for all numbers that there are and some that there are not."""
    found = set()
    for architecture in seccompprofile.ARCHITECTURES[os.uname().machine]:
        for number in range(600):
            name = name_of(architecture, number)
            for argument in ARGUMENTS.get(name, (0,)):
                answers = [seccomp.answer(program, architecture, number, [argument]) for program in (docker, ours)]
                if answers[0] != answers[1]:
                    found.add((name, *(WORDS.get(word, hex(word)) for word in answers)))
    return found


@pytest.mark.parametrize("added", [(), ADMINISTRATORS], ids=["default", "administrators"])
@pytest.mark.parametrize("dropped", [(), ("ALL",)], ids=["", "dropped"])
def test_every_difference_has_its_reason(
    docker: swarm.Swarm, box: Box, added: tuple[str, ...], dropped: tuple[str, ...]
) -> None:
    """With Docker's default capabilities, with more, with none and with those alone."""
    assert sys.byteorder == "little"
    theirs = dockers_filter(docker, CapAdd=list(added), CapDrop=list(dropped))
    capabilities = [*(() if dropped else defaults.CAPABILITIES), *(f"CAP_{name}" for name in added)]
    found = differences(theirs, our_filter(box, capabilities))
    assert found <= EXPLAINED, f"neither Docker's nor explained: {sorted(found - EXPLAINED)}"


def test_no_explanation_is_stale(docker: swarm.Swarm, box: Box) -> None:
    """For the Docker that the table was written for (Debian's 20.10): all that it says is so."""
    version = docker.ask("GET", "/version")["Version"]
    if not version.startswith("20.10."):
        pytest.skip(f"this is Docker {version}")
    seen = differences(dockers_filter(docker), our_filter(box, list(defaults.CAPABILITIES)))
    box.delete("a", force=True)
    everything = [*defaults.CAPABILITIES, *(f"CAP_{name}" for name in ADMINISTRATORS)]
    seen |= differences(dockers_filter(docker, CapAdd=list(ADMINISTRATORS)), our_filter(box, everything))
    assert seen == EXPLAINED
