"""Run what every creation runs, as far as it has no effect.

The interpreter adapts its code in its first dozen runs, by writing into it. Done in the launcher it is done once;
done in the forks it would cost each of them a copy of every page that it touches. And a process that stands by
takes the copies that it will need anyhow before there is work, rather than after.
"""

import os

from runtime import cgroups, defaults, monitor, protocol, spec, state
from runtime.seccomp import cache, profile


def prepare(root: str) -> None:
    """Have the default configuration's filter ready, in memory that every fork shares."""
    known = profile.remember(defaults.config([], cgroups_path="/")["linux"]["seccomp"])
    cache.remember(known, root)


def run(times: int) -> None:
    """Rehearse so many times."""
    config = defaults.config(["true"], cgroups_path="/rehearsal", hostname="rehearsal")
    defaults.give_user_namespace(config, first_id=1 << 16, path="/user")
    overlay = {"lower": ["/lower"], "upper": "/upper", "work": "/work"}
    request = {"id": 0, "container": "rehearsal", "config": config, "overlay": overlay, "start": True}
    packet = protocol.encode(request)
    for _ in range(times):
        body = protocol.decode(packet)
        monitor.parse(body, "/", (), -1)
        wanted = spec.parse(body["config"])
        group = cgroups.Cgroup.plan(cgroups.current_layout(), wanted.cgroups_path, wanted.resources)
        cgroups.visible_folders(group)
        state.process_start(os.getpid())
