"""A laboratory: three Debian virtual machines on a LAN of their own, and a cluster that is installed there.

    make vmlab ── keeper ──┬── bridge lan0, in a network namespace of the keeper's        10.77.0.1
                           ├── vm1: qemu, systemd, etcd, control plane, agent             10.77.0.11
                           ├── vm2: qemu, systemd, agent                                  10.77.0.12
                           └── vm3: …

Two rules. Everything that runs is a child of the keeper and dies with it, and the network goes with the last of them:
no way of ending it leaves anything running. What is on disk is below one folder of the cache, and bounded: one image,
one bundle, and one overlay a machine, which the next laboratory begins by emptying.

The machines take nothing from a network: what they install comes on a disk that `make bundle` has filled.
"""
