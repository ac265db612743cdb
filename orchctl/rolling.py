"""What `rollout`, `restart`, `stop` and `start` share: one request a service, and the wait for what comes of it."""

from collections.abc import Sequence

from orchctl import client, errors, options, terminal, waiting
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
    done = []
    with client.connect(settings.server) as stub:
        for name in map(bare, names):
            request = control.RolloutRequest(
                reference=control.ObjectReference(kind="service", namespace=settings.namespace, name=name),
                action=action,
                revision=revision,
            )
            response = stub.Rollout(request, timeout=client.CALL_TIMEOUT_S)
            terminal.say(f"service/{name} {terminal.one_line(response.message)}")
            done.append(Target.of(response.service))
    if wait_ms is not None:
        waiting.until_settled(settings.server, done, wait_ms)


def bare(name: str) -> str:
    """`service/web` → `web`."""
    kind, slash, rest = name.partition("/")
    if slash and kind not in {"service", "services", "svc"}:
        raise errors.InvalidInput(f"not a service: {name!r}", hint="services have rollouts; write the service's name")
    return rest if slash else name
