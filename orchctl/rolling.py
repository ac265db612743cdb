"""What `rollout`, `restart`, `stop` and `start` share: one request a service, and the wait for what comes of it."""

from collections.abc import Sequence

from orchctl import client, dependents, options, terminal, waiting, words
from orchctl.progress import Target
from protos.orch.v1 import control_pb2 as control


def ask(
    settings: options.Settings,
    names: Sequence[str],
    action: control.RolloutAction.ValueType,
    *,
    wait_ms: int | None = None,
    revision: int = 0,
) -> None:
    """Asks for each of the services, says what was done, and waits up to `wait_ms` until they stand as asked."""
    named = [words.service_name(name) for name in names]
    meant = [control.ObjectReference(kind="service", namespace=settings.namespace, name=name) for name in named]
    done = []
    with client.connect(settings.server) as stub:
        for reference in dependents.first(stub, meant) if action == control.ROLLOUT_ACTION_STOP else meant:
            request = control.RolloutRequest(reference=reference, action=action, revision=revision)
            response = stub.Rollout(request, timeout=client.CALL_TIMEOUT_S)
            terminal.say(f"service/{reference.name} {terminal.one_line(response.message)}")
            done.append(Target.of(response.service))
    if wait_ms is not None:
        waiting.until_settled(settings.server, done, wait_ms)
