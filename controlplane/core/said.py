"""What nodes say of themselves and of their tasks, held to bounds before anything is made of it.

A node's certificate proves which node speaks, and nothing of what it says. A leader stores these words, tells them to
other nodes and reads them on each of its passes; so one that is too long, or no address, would reach all of them.

| what | if it is not so |
|---|---|
| a registration keeps to the rules of its fields | the session is refused, with the reason |
| its name is the one that the node joined with | the session is refused, with the reason |
| the address of a task lies in its node's subnet | the task is listed without it: nothing is sent there |
| the words on a task are at most `MAX_STATUS_BYTES` long | the long ones are cut, and what else is long is left out |
"""

import functools
import ipaddress
from collections.abc import Iterator

from manifests import rules
from protos import families
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

MAX_REGISTRATION_BYTES = 65_536
MAX_STATUS_BYTES = 16_384
MAX_WORDS = 2_000
"""Characters of a message that is cut."""
MAX_REASON = 64
FOREIGN = "ForeignAddress"
"""The reason of a task that is listed without its address."""


def refusal(register: wire.Register, joined_as: str) -> str:
    """Why a registration is refused; empty when it is not. `joined_as`: the node's name as it joined; empty: not known.

    Example: `n1` says `zone=a b` → `label zone: not a label's value; write at most …`.
    """
    size = register.ByteSize()
    if size > MAX_REGISTRATION_BYTES:
        return f"the registration has {size} bytes, and may have {MAX_REGISTRATION_BYTES}; give the node fewer labels"
    for problem in _problems(register):
        return f"the registration's {problem}"
    if joined_as and register.node_name != joined_as:
        return (
            f"the node joined as {joined_as}, and its agent says that it is {register.node_name}; start the agent with "
            f"--name {joined_as}, or take the node out with `orchctl node leave` and join it by its new name"
        )
    return ""


def _problems(register: wire.Register) -> Iterator[rules.Problem]:
    yield from rules.validate(register)
    yield from rules.label_problems(register.labels, ("labels",))
    description = register.description
    if description.address and not _is_address(description.address):
        hint = "start the agent with the --address at which other nodes reach it, such as 10.0.0.5"
        yield rules.Problem(keys=("description", "address"), message="not an address", hint=hint)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # a zone says something on its own machine alone


def bounded(status: pb.TaskStatus) -> pb.TaskStatus:
    """The status; what is too long in it is cut, or left out."""
    if status.ByteSize() <= MAX_STATUS_BYTES:
        return status
    kept = pb.TaskStatus(
        state=status.state,
        at=status.at,
        message=_cut(status.message, MAX_WORDS),
        reason=_cut(status.reason, MAX_REASON),
        ready=status.ready,
        restarts=status.restarts,
        address=status.address,
        address6=status.address6,
        oom_killed=status.oom_killed,
        started_at=status.started_at,
        finished_at=status.finished_at,
        first_run=status.first_run,
    )
    if status.HasField("exit_code"):
        kept.exit_code = status.exit_code
    if status.HasField("root_id"):
        kept.root_id = status.root_id
    return kept


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def without_foreign_addresses(status: pb.TaskStatus, node: pb.Node | None) -> pb.TaskStatus:
    """The status; without addresses that are none of its node's, and with a word about that.

    `node`: its record, None when it is gone.

    Example: of a node with 10.200.3.0/24, a task that says 10.200.4.7 is listed without an address.
    """
    foreign = [family for family in families.told(status, "address") if not _is_own(status, node, family)]
    if not foreign:
        return status
    kept = pb.TaskStatus()
    kept.CopyFrom(status)
    for family in foreign:
        family.set(kept, "address", "")
    shown = ", ".join(_cut(family.get(status, "address"), MAX_REASON) for family in foreign)
    kept.reason, kept.message = FOREIGN, f"its agent says that it has {shown}, which is no address of its node's range"
    return kept


def _is_own(status: pb.TaskStatus, node: pb.Node | None, family: families.Family) -> bool:
    subnet = family.get(node.status, "subnet") if node is not None else ""
    return bool(subnet) and _lies_in(family.get(status, "address"), subnet)


@functools.lru_cache(maxsize=65_536)
def _lies_in(address: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)
    except ValueError:
        return False
