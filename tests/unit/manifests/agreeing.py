"""What makes the fields of a message agree whose values were drawn one by one.

Else most of what is drawn breaks some rule across fields, and a run that is out of luck finds hardly anything valid.
Rules that one drawn object in fifty breaks are left to the filter.
"""

from collections.abc import Callable, Mapping
from typing import Any

from manifests import containers, fencing
from protos.orch.v1 import objects_pb2 as pb


def agree(value: Any) -> None:
    """Changes a message, and nothing in those that it holds unless a rule is about both."""
    mend = _MENDERS.get(type(value))
    if mend is not None:
        mend(value)


def _template(template: pb.TaskTemplate) -> None:
    """Each container has a name of its own, only the main one says what is about the whole task, and what they mount
    is declared.
    """
    template.container.ClearField("name")
    template.stop_grace_period = max(template.stop_grace_period, 1_000)
    for number, one in enumerate((*template.init, *template.sidecars)):
        one.name = f"c{number}"
        one.ClearField("privileged")
        for shared in containers.SHARED:
            one.ClearField(shared)
    for one in template.init:
        one.ClearField("probes")
        one.ClearField("lifecycle")
    every = (template.container, *template.init, *template.sidecars)
    for name in sorted({mount.volume for one in every for mount in one.mounts}):
        template.volumes.add(name=name)


def _container(container: pb.Container) -> None:
    """A privileged one has all powers, and no words about them."""
    if container.privileged:
        for about_powers in ("seccomp", "userns", "capabilities"):
            container.ClearField(about_powers)


def _update(update: pb.UpdatePolicy) -> None:
    """In one of the two ways to speak; and something may be missing, or on top."""
    if not update.max_surge and not update.max_unavailable:
        return
    update.ClearField("parallelism")
    update.ClearField("order")
    if _is_nothing(update.max_surge) and _is_nothing(update.max_unavailable):
        update.max_unavailable = "1"


def _is_nothing(part: str) -> bool:
    return not part.removesuffix("%").strip("0")


def _service(spec: pb.ServiceSpec) -> None:
    """Where no task may run twice, there is one in each slot, and a lost one has its time."""
    if spec.mode == pb.SERVICE_MODE_GLOBAL:
        spec.on_node_loss.ClearField("fence")
    if not spec.on_node_loss.fence:
        return
    spec.on_node_loss.replace_after = max(spec.on_node_loss.replace_after, fencing.LEAST_MS)
    if spec.update.max_surge:
        spec.update.max_surge, spec.update.max_unavailable = "", "1"
    if spec.update.order == pb.UPDATE_ORDER_START_FIRST:
        spec.update.order = pb.UPDATE_ORDER_STOP_FIRST


def _port(port: pb.Port) -> None:
    if not port.published:
        port.ClearField("mode")


def _limits(limits: pb.Ulimit) -> None:
    limits.soft = min(limits.soft, limits.hard)


def _disruption(policy: pb.DisruptionPolicy) -> None:
    if policy.min_available:
        policy.max_unavailable = ""


_MENDERS: Mapping[type[Any], Callable[[Any], None]] = {
    pb.TaskTemplate: _template,
    pb.Container: _container,
    pb.UpdatePolicy: _update,
    pb.ServiceSpec: _service,
    pb.Port: _port,
    pb.Ulimit: _limits,
    pb.DisruptionPolicy: _disruption,
}
