"""Where a launcher goes among the control groups: only where somebody has put it."""

from runtime import residence

MOUNTS = """\
29 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
30 22 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
31 22 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 22 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
34 22 0:31 / /proc rw - proc proc rw
"""
OWN = """\
4:freezer:/
3:cpu,cpuacct:/system.slice/orch-agent.service
2:pids:/system.slice/orch-agent.service
1:name=systemd:/system.slice/orch-agent.service
0::/system.slice/orch-agent.service
"""
PATH = "/system.slice/orch-tasks.service/@monitors"


def test_it_leaves_the_group_that_it_was_put_in() -> None:
    """Not the top (freezer); and what is mounted nowhere (pids) cannot be left."""
    found = list(residence.folders(OWN, residence.mounts(MOUNTS), PATH))
    assert found == [f"/sys/fs/cgroup/{hierarchy}{PATH}" for hierarchy in ("cpu,cpuacct", "systemd", "unified")]


def test_on_version_2_there_is_one_hierarchy() -> None:
    mounted = residence.mounts("29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    own = "0::/system.slice/orch-agent.service\n"
    assert list(residence.folders(own, mounted, PATH)) == [f"/sys/fs/cgroup{PATH}"]
