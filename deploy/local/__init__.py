"""A cluster on one machine: etcd, a control plane, and nodes that are as separate as virtual machines.

    host ──orch-local──┐
                       │ LAN: a network namespace with a bridge          10.111.0.0/24
    supervisor ────────┼── etcd, control plane                           10.111.0.1
        │              ├── machine n1: agent, launcher, containers       10.111.0.11
        └─ sweeper     └── machine n2: …                                 10.111.0.12

Two rules. Everything is a descendant of the supervisor and dies with it, so that no way of ending it leaves anything
running: processes take their namespaces, links, mounts and rules with them. What does not die with a process (the
cgroups, the state folder, the host's link, the context of `orchctl`) is swept by a sweeper that outlives it.
"""
