"""System call filters: `linux.seccomp` of the configuration, from its text to the kernel.

    profile    config.json → values                                  pure
    library    values → a BPF program, through libseccomp            20 ms for Docker's default profile
    newer      what libseccomp does not know, put before its program pure
    cache      profile → program: from memory, from disk, or made    a start pays 0.1 ms
    notify     where a filter asks somebody: the courier that hands its listener over
    filter     what a process does with its program, as the last thing before its exec

Two rules. A program is compiled once for each distinct profile, and never in a process that stays, as the library's
memory would stay too. And a filter comes last, so that the runtime's own calls need no place in anybody's profile:
after it there is the exec and, where the privilege to load it was kept until then, the capset that gives it up.
"""
