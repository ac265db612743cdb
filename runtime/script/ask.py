"""Ask a namespace what only a process inside can tell, by one that shares our memory: no page is copied for it."""

import os

from runtime import syscalls
from runtime.script import machine
from runtime.script.steps import Script
from runtime.spec import mappings
from runtime.spec.mappings import IdMaps

_PAGE_BYTES = 4096


def id_maps(memory: machine.Memory, user_namespace: int) -> IdMaps | None:
    """What an open user namespace maps (user_namespaces(7)); None when it cannot be entered. Uses up the memory's list.

    The caller waits for its children by their numbers.
    """
    script = Script(memory.address)
    namespace = script.given()
    script.call("setns", namespace, syscalls.CLONE_NEWUSER)
    texts = []
    for path in ("/proc/self/uid_map", "/proc/self/gid_map"):
        texts.append(script.room(_PAGE_BYTES))
        script.call("read", script.answer("openat", syscalls.AT_FDCWD, path, os.O_RDONLY), texts[-1], _PAGE_BYTES - 1)
    script.call("exit_group", 0)
    memory.load(script.part())
    memory.give([user_namespace])
    status = os.waitpid(memory.run(0), 0)[1]
    if status:
        return None
    uids, gids = (mappings.parse_text(memory.text(place.address)) for place in texts)
    return IdMaps(uids=uids, gids=gids)
