"""A few objects as a control plane would hold them, at one moment, for tests that show them."""

from protos.orch.v1 import objects_pb2 as pb

HELLO_MANIFEST = """\
kind: Service
meta: {name: hello}
spec:
  replicas: 3
  template: {container: {image: "hello:1.0"}}
"""

NOW_MS = 1_800_000_000_000
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS


def meta(name: str, *, namespace: str = "default", id: str = "", age_ms: int = 90 * SECOND_MS) -> pb.Meta:  # noqa: A002
    return pb.Meta(
        id=id or f"id-{name}", name=name, namespace=namespace, generation=1, version=5, created_at=NOW_MS - age_ms
    )


def service(name: str = "hello", *, asked: int = 3, ready: int = 3, settled: bool = True) -> pb.Service:
    return pb.Service(
        meta=meta(name),
        spec=pb.ServiceSpec(
            mode=pb.SERVICE_MODE_REPLICATED,
            replicas=asked,
            template=pb.TaskTemplate(container=pb.Container(image=f"{name}:1.0")),
        ),
        status=pb.ServiceStatus(
            observed_generation=1,
            replicas=asked,
            running=ready,
            ready=ready,
            updated=ready,
            revision_id="rev1",
            settled=settled,
            address="10.201.0.7",
        ),
    )


def task(
    slot: int = 1,
    *,
    state: pb.TaskState.ValueType = pb.TASK_STATE_RUNNING,
    desired: pb.DesiredState.ValueType = pb.DESIRED_STATE_RUNNING,
    random: str = "aaaaaaaa",
    age_ms: int = 90 * SECOND_MS,
    **status: object,
) -> pb.Task:
    name = f"hello-{slot}-{random}"
    assigned = state >= pb.TASK_STATE_ASSIGNED
    given = pb.TaskStatus(state=state, at=NOW_MS - age_ms, **status)  # type: ignore[arg-type]  # fields by name
    if state == pb.TASK_STATE_RUNNING and "ready" not in status:
        given.ready = True
    return pb.Task(
        meta=meta(name, id=name, age_ms=age_ms),
        service="hello",
        revision_id="rev1",
        slot=slot,
        node_id="node-1" if assigned else "",
        desired_state=desired,
        status=given,
    )


def node(name: str = "n1", *, number: int = 1) -> pb.Node:
    return pb.Node(
        meta=meta(name, namespace="", id=f"node-{number}", age_ms=5 * HOUR_MS),
        spec=pb.NodeSpec(availability=pb.AVAILABILITY_ACTIVE),
        status=pb.NodeStatus(
            state=pb.NODE_STATE_READY,
            since=NOW_MS - HOUR_MS,
            subnet=f"10.112.{number}.0/24",
            description=pb.NodeDescription(
                hostname=name,
                address=f"10.111.0.{10 + number}",
                platform="linux/amd64",
                kernel="6.1.0",
                os="Debian GNU/Linux 12",
                cgroup_mode="hybrid",
                agent_version="0.1.0",
                capacity=pb.NodeCapacity(cpu=2000, memory=4 << 30, tasks=500),
            ),
        ),
    )


def network(name: str = "back", *, internal: bool = True) -> pb.Network:
    return pb.Network(meta=meta(name), spec=pb.NetworkSpec(internal=internal))


def endpoints(
    name: str = "hello", *, ready: int = 2, all_of_them: int = 3, networks: tuple[str, ...] = ()
) -> pb.Endpoints:
    """Of a service with a virtual address; one other service may reach its port."""
    tasks = [
        pb.EndpointTask(
            id=f"{name}-{slot}-aaaaaaaa",
            slot=slot,
            node_id="node-1",
            address=f"10.112.1.{slot + 1}",
            ready=slot <= ready,
        )
        for slot in range(1, all_of_them + 1)
    ]
    http = pb.Port(name="http", target=8080, published=80, protocol=pb.PROTOCOL_TCP)
    return pb.Endpoints(
        meta=meta(name),
        status=pb.EndpointsStatus(
            address="10.201.0.7",
            ports=[http],
            tasks=tasks,
            networks=networks or ("default/default",),
            internal=bool(networks),
            allowed=[pb.EndpointSource(service="other/api", ports=[pb.Port(target=8080, protocol=pb.PROTOCOL_TCP)])],
        ),
    )


def cluster() -> pb.Cluster:
    status = pb.ClusterStatus(last_service_address="10.201.0.7", last_subnet="10.112.3.0/24")
    return pb.Cluster(meta=meta("cluster", namespace=""), status=status)


def revision(number: int = 1) -> pb.Revision:
    return pb.Revision(
        meta=meta(f"hello-{number}", id=f"rev{number}"),
        service="hello",
        number=number,
        template=pb.TaskTemplate(
            container=pb.Container(
                image=f"hello:{number}.0",
                command=["/bin/httpd", "-f"],
                env={"COLOUR": "blue", "A": "1"},
                ports=[pb.Port(target=80, published=8080, protocol=pb.PROTOCOL_TCP)],
                resources=pb.Resources(
                    limits=pb.ResourceLimits(cpu=500, memory=64 << 20, pids=100),
                    reservations=pb.ResourceReservations(memory=32 << 20),
                ),
            ),
            stop_grace_period=10_000,
        ),
    )


def image(name: str = "hello:1.0") -> pb.Image:
    return pb.Image(
        meta=meta(name, namespace=""),
        status=pb.ImageStatus(
            digest="sha256:" + "0123456789abcdef" * 4, size=1_400_000, platform="linux/amd64", layers=2
        ),
    )


PENDING = task(
    3,
    state=pb.TASK_STATE_PENDING,
    refusals=[
        pb.Refusal(
            filter="resources",
            detail="not enough memory: needs 4Gi, at most 1Gi is free",
            nodes=3,
            examples=["n1", "n2"],
        ),
        pb.Refusal(filter="availability", detail="it is drained", nodes=1, examples=["n4"]),
    ],
)
CRASHING = task(
    2,
    random="bbbbbbbb",
    ready=False,
    restarts=4,
    exit_code=137,
    oom_killed=True,
    message="restarts in 8s",
    address="10.112.1.3",
)


def event(
    reason: str = "Started", *, about: str = "task/hello-1-aaaaaaaa", age_ms: int = 90 * SECOND_MS, **status: object
) -> pb.Event:
    kind, _, name = about.partition("/")
    namespace = "" if kind == "node" else "default"
    return pb.Event(
        meta=pb.Meta(id=f"{name}.1", name=f"{name}.1", namespace=namespace or "_", created_at=NOW_MS - age_ms),
        status=pb.EventStatus(
            about=pb.EventObject(kind=kind, namespace=namespace, name=name, id=name),
            reason=reason,
            first_seen=NOW_MS - age_ms,
            last_seen=NOW_MS - age_ms,
            **{"type": pb.EVENT_TYPE_NORMAL, "count": 1, "message": "started on node n1", **status},  # type: ignore[arg-type]  # fields by name
        ),
    )
