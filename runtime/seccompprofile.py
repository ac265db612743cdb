"""The system calls that a container may use when its manifest says nothing: Docker's default profile in effect.

The profile is a list of what is allowed; every other call fails with EPERM. What decides over a group is in the group:
the container's capabilities, the machine, the kernel. `resolve` is a pure function from these to `linux.seccomp`.

Names of other machines and of later kernels cost nothing: what the machine does not have is left out when the profile
is compiled. Differences from Docker are few and on purpose: tests/integration/runtime/test_seccomp_docker.py has them.
"""

import errno
import os
from collections.abc import Collection
from typing import Any, Final

from runtime.values import frozen

ARCHITECTURES: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}
"""Each machine (`uname -m`) with the others whose programs it runs."""

_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
_AF_ALG, _AF_VSOCK = 38, 40


@frozen
class Group:
    """Calls that are allowed together, to containers that have one of `having` (if any) and not `lacking`."""

    why: str
    calls: str
    having: tuple[str, ...] = ()
    lacking: str = ""
    machines: tuple[str, ...] = tuple(ARCHITECTURES)
    kernel: tuple[int, int] = (0, 0)  # and later
    only_if: tuple[dict[str, Any], ...] = ()  # one of these conditions on the arguments holds
    answer: int = 0  # an errno that the calls get instead


def _when(operator: str, value: int, value_two: int = 0) -> dict[str, Any]:
    """A condition on the first argument."""
    return {"index": 0, "value": value, "valueTwo": value_two, "op": f"SCMP_CMP_{operator}"}


GROUPS: Final = (
    Group(
        why="files: names, folders, owners, times, attributes; permissions decide over each",
        calls="""
            access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchown32
            fchownat fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat
            getcwd getdents getdents64 getxattr getxattrat lchown lchown32 lgetxattr link linkat listmount listxattr
            listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at
            newfstatat open openat openat2 readlink readlinkat removexattr removexattrat rename renameat renameat2 rmdir
            setxattr setxattrat stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate truncate64 umask
            unlink unlinkat utime utimensat utimensat_time64 utimes
        """,
    ),
    Group(
        why="descriptors: reading, writing, waiting, locking, watching; ioctl is guarded by each driver",
        calls="""
            _llseek _newselect cachestat close close_range copy_file_range dup dup2 dup3 epoll_create epoll_create1
            epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fadvise64
            fadvise64_64 fallocate fanotify_mark fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64
            inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
            io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl lseek pipe pipe2 poll ppoll ppoll_time64 pread64
            preadv preadv2 pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readv select sendfile
            sendfile64 signalfd signalfd4 splice sync sync_file_range syncfs tee timerfd_create timerfd_gettime
            timerfd_gettime64 timerfd_settime timerfd_settime64 vmsplice write writev
        """,
    ),
    Group(
        why="memory of the process itself",
        calls="""
            brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
            mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
        """,
    ),
    Group(
        why="processes, threads and what they wait for; new namespaces are another group's",
        calls="""
            execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
            get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getrusage getsid gettid pidfd_open
            prctl process_mrelease restart_syscall riscv_hwprobe rseq set_robust_list set_thread_area set_tid_address
            setpgid setsid uretprobe vfork wait4 waitid waitpid
        """,
    ),
    Group(
        why="signals; the kernel lets them go to processes that the sender may signal only",
        calls="""
            kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
            rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
            tgkill tkill
        """,
    ),
    Group(
        why="who the process is, and its limits; each is guarded by a capability",
        calls="""
            capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
            getresgid32 getresuid getresuid32 getrlimit getuid getuid32 prlimit64 setfsgid setfsgid32 setfsuid
            setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid
            setresuid32 setreuid setreuid32 setrlimit setuid setuid32 ugetrlimit
        """,
    ),
    Group(
        why="scheduling of the process's own threads",
        calls="""
            getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity
            sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
            sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority
        """,
    ),
    Group(
        why="clocks and timers; setting the clock needs CAP_SYS_TIME also of adjtimex",
        calls="""
            adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
            clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
            timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times
        """,
    ),
    Group(
        why="System V and POSIX queues, semaphores and shared memory, which end at the ipc namespace",
        calls="""
            ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
            mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
            shmget
        """,
    ),
    Group(
        why="sockets that are there already; making one is the next group's",
        calls="""
            accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
            recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
        """,
    ),
    Group(
        why="sockets but AF_ALG, a door to the kernel's ciphers, and AF_VSOCK, which is not divided by namespaces",
        calls="socket",
        only_if=(_when("LT", _AF_ALG), _when("EQ", _AF_ALG + 1), _when("GT", _AF_VSOCK)),
    ),
    Group(
        why="sockets by their old name on 32-bit x86, whose arguments no filter can see; Linux 4.3 gave each its call",
        calls="socketcall",
        machines=("x86_64",),
        answer=errno.ENOSYS,
    ),
    Group(
        why="giving up rights, and harmless questions",
        calls="""
            getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp sysinfo uname
        """,
    ),
    Group(
        why="looking into processes of the same user; before 4.8 ptrace was a way around this filter",
        calls="process_vm_readv process_vm_writev ptrace",
        kernel=(4, 8),
    ),
    Group(
        why="Linux, 32-bit Linux, and 4 GiB for either, and asking; others switch protections off",
        calls="personality",
        only_if=tuple(_when("EQ", value) for value in (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)),
    ),
    Group(why="thread-local storage and 16-bit segments", calls="arch_prctl modify_ldt", machines=("x86_64",)),
    Group(
        why="what 32-bit Arm needs beside",
        calls="arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
        machines=("aarch64",),
    ),
    Group(why="making code that was written executable", calls="riscv_flush_icache", machines=("riscv64",)),
    Group(
        why="processes and threads, but no namespaces: CAP_SYS_ADMIN in an own user namespace opens half the kernel",
        calls="clone",
        lacking="CAP_SYS_ADMIN",
        only_if=(_when("MASKED_EQ", _NEW_NAMESPACES),),
    ),
    Group(
        why="its flags are in memory, where no filter can see them; C libraries then use clone",
        calls="clone3",
        lacking="CAP_SYS_ADMIN",
        answer=errno.ENOSYS,
    ),
    Group(
        why="what CAP_SYS_ADMIN is asked for",
        calls="""
            bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
            lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
            quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
        """,
        having=("CAP_SYS_ADMIN",),
    ),
    Group(
        why="reaching any file by its number, past the folders that hide it",
        calls="open_by_handle_at",
        having=("CAP_DAC_READ_SEARCH",),
    ),
    Group(why="its capability", calls="reboot", having=("CAP_SYS_BOOT",)),
    Group(why="its capability", calls="chroot", having=("CAP_SYS_CHROOT",)),
    Group(why="its capability", calls="delete_module finit_module init_module", having=("CAP_SYS_MODULE",)),
    Group(why="its capability", calls="acct", having=("CAP_SYS_PACCT",)),
    Group(
        why="looking into any process",
        calls="kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
        having=("CAP_SYS_PTRACE",),
    ),
    Group(why="its capability", calls="ioperm iopl", having=("CAP_SYS_RAWIO",)),
    Group(
        why="its capability",
        calls="clock_settime clock_settime64 settimeofday stime",
        having=("CAP_SYS_TIME",),
    ),
    Group(why="its capability", calls="vhangup", having=("CAP_SYS_TTY_CONFIG",)),
    Group(
        why="where memory comes from",
        calls="get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        having=("CAP_SYS_NICE",),
    ),
    Group(why="its capability", calls="syslog", having=("CAP_SYSLOG",)),
    Group(why="its capability", calls="bpf", having=("CAP_BPF",)),
    Group(why="its capability", calls="perf_event_open", having=("CAP_PERFMON",)),
)


def default(capabilities: Collection[str]) -> dict[str, Any]:
    """`linux.seccomp` for a container with these capabilities (CAP_…) in its bounding set, on this machine."""
    system = os.uname()
    major, minor = system.release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return resolve(capabilities, kernel=(int(major), int(digits or 0)), machine=system.machine)


def resolve(capabilities: Collection[str], *, kernel: tuple[int, int], machine: str) -> dict[str, Any]:
    """The same for any kernel (5, 10) and machine ("x86_64")."""
    rules = []
    for group in GROUPS:
        if _applies(group, capabilities, kernel, machine):
            rules += _rules(group)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": list(ARCHITECTURES[machine]),
        "syscalls": rules,
    }


def _applies(group: Group, capabilities: Collection[str], kernel: tuple[int, int], machine: str) -> bool:
    if group.having and not any(name in capabilities for name in group.having):
        return False
    return group.lacking not in capabilities and machine in group.machines and kernel >= group.kernel


def _rules(group: Group) -> list[dict[str, Any]]:
    """One rule, or one for each condition, as any of them opens the calls."""
    rule: dict[str, Any] = {"names": group.calls.split(), "action": "SCMP_ACT_ALLOW"}
    if group.answer:
        rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": group.answer}
    return [{**rule, "args": [condition]} for condition in group.only_if] or [rule]
