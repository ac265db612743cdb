"""What nodes are told of a service, and that the table of all of them never differs from that."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import endpoint_table, endpoints
from controlplane.store import typed
from controlplane.store.snapshots import Change, Editor, Snapshot
from protos import kinds, states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build

LOST, DOWN, READY = pb.NODE_STATE_DISCONNECTED, pb.NODE_STATE_DOWN, pb.NODE_STATE_READY


def web(**spec: object) -> pb.Service:
    service = build.service()
    service.spec.template.container.ports.add(name="http", target=80, protocol=pb.PROTOCOL_TCP)
    service.status.address = "10.201.0.1"
    service.spec.MergeFrom(pb.ServiceSpec(**spec))  # type: ignore[arg-type]  # fields by name
    return service


def made(
    service: pb.Service,
    tasks: Sequence[pb.Task] = (),
    *,
    nodes: dict[str, int] | None = None,
    others: Sequence[pb.Service] = (),
    internal: Sequence[str] = (),
) -> wire.NetworkService:
    by_name = {(one.meta.namespace, one.meta.name): one for one in others}
    value = endpoints.network_service(
        service,
        [build.revision(service)],
        tasks,
        node_states={"n1": READY} if nodes is None else nodes,
        internal_networks=internal,
        find=lambda namespace, name: by_name.get((namespace, name)),
    )
    assert value is not None
    return value


def running(slot: int = 1, node: str = "n1", **more: object) -> pb.Task:
    return build.task(slot, node=node, ident=f"web-{slot}-{node}", address=f"10.112.1.{slot}", **more)  # type: ignore[arg-type]


def ready_ones(value: wire.NetworkService) -> list[str]:
    return [one.task_id for one in value.endpoints if one.ready]


def test_a_service_is_told_with_its_defaults() -> None:
    assert made(web(), [running()]) == wire.NetworkService(
        id="id-web",
        namespace="default",
        name="web",
        address="10.201.0.1",
        ports=[pb.Port(name="http", target=80, protocol=pb.PROTOCOL_TCP)],
        session_affinity=pb.SESSION_AFFINITY_NONE,
        external_traffic_policy=pb.EXTERNAL_TRAFFIC_POLICY_CLUSTER,
        endpoints=[wire.Endpoint(task_id="web-1-n1", slot=1, node_id="n1", address="10.112.1.1", ready=True)],
        networks=["default/default"],
    )


def test_a_task_of_an_older_revision_is_told_with_its_own_ports() -> None:
    """It goes on with them until it is replaced."""
    service = web()
    older = build.revision(service)
    service.spec.template.container.ports[0].target = 81
    newer = build.revision(service, number=2)
    tasks = [running(1, revision_id=older.meta.id), running(2, revision_id=newer.meta.id)]
    value = endpoints.network_service(
        service, [older, newer], tasks, node_states={"n1": READY}, internal_networks=(), find=lambda *_: None
    )
    assert value is not None
    assert [port.target for port in value.ports] == [81]
    assert [[port.target for port in one.ports] for one in value.endpoints] == [[80], []]


def test_a_service_without_a_revision_is_not_told_of() -> None:
    value = endpoints.network_service(
        web(), [], [], node_states={}, internal_networks=(), find=lambda _namespace, _name: None
    )
    assert value is None


def test_a_name_that_leads_to_tasks_has_no_address() -> None:
    assert made(web(endpoint_mode=pb.ENDPOINT_MODE_DNS)).address == ""
    without_ports = build.service()
    without_ports.status.address = "10.201.0.1"
    assert made(without_ports).address == "", "it had ports once"


@pytest.mark.parametrize(
    ("task", "listed", "ready"),
    [
        (running(), True, True),
        (build.task(1), False, False),
        (running(ready=False), True, False),
        (running(desired=pb.DESIRED_STATE_SHUTDOWN), True, False),
        (running(desired=pb.DESIRED_STATE_READY), True, True),
        (running(state=states.STARTING), True, False),
        (running(state=states.FAILED), False, False),
        (running(state=states.SHUTDOWN), False, False),
    ],
    ids=["ready", "no address", "not ready", "to stop", "held", "starting", "failed", "ended"],
)
def test_a_task_is_listed_while_it_lives_and_ready_while_it_takes_requests(
    task: pb.Task, listed: bool, ready: bool
) -> None:
    value = made(web(), [task])
    assert (bool(value.endpoints), bool(ready_ones(value))) == (listed, ready)


@pytest.mark.parametrize(
    ("nodes", "ready"),
    [
        ({"n1": READY, "n2": READY}, ["n1", "n2"]),
        ({"n1": LOST, "n2": READY}, ["n2"]),
        ({"n1": LOST, "n2": LOST}, ["n1", "n2"]),
        ({"n1": LOST, "n2": DOWN}, ["n1"]),
        ({"n1": DOWN, "n2": DOWN}, []),
        ({"n1": READY}, ["n1"]),
    ],
)
def test_a_lost_node_is_passed_over_while_there_is_another(nodes: dict[str, int], ready: list[str]) -> None:
    value = made(web(), [running(1, "n1"), running(2, "n2")], nodes=nodes)
    assert [name.rpartition("-")[2] for name in ready_ones(value)] == ready
    assert len(value.endpoints) == 2


def test_endpoints_are_in_the_order_of_slots() -> None:
    assert [one.slot for one in made(web(), [running(10), running(2), running(1)]).endpoints] == [1, 2, 10]


def test_networks_are_full_names_and_internal_when_all_are() -> None:
    value = made(web(networks=["front", "other/back"]), internal=["default/front"])
    assert (list(value.networks), value.internal) == (["default/front", "other/back"], False)
    assert made(web(networks=["front"]), internal=["default/front"]).internal


def test_rules_name_services_by_id_and_ports_by_number() -> None:
    rules = [
        pb.AllowRule(**{"from": "api"}, ports=["http"]),
        pb.AllowRule(**{"from": "default/api"}),
        pb.AllowRule(**{"from": "gone"}),
        pb.AllowRule(**{"from": "api"}, ports=["gone"]),
    ]
    assert list(made(web(allow=rules), others=[build.service("api")]).allow) == [
        wire.AllowedSource(service_id="id-api", ports=[pb.Port(target=80, protocol=pb.PROTOCOL_TCP)]),
        wire.AllowedSource(service_id="id-api"),
    ]


# The table ----------------------------------------------------------------------------------------------------------


class World:
    """A state that is edited, and a table that follows it."""

    def __init__(self) -> None:
        self._editor = Editor()
        self._pending: list[Change] = []
        self.table = endpoint_table.Table()

    def put(self, *values: kinds.StoredObject) -> None:
        for value in values:
            key = kinds.key(value)
            decoded = typed.decode(key, typed.encode(value), 1)
            change = self._editor.replace(kinds.of(value), key, decoded)
            assert change is not None
            self._pending.append(change)

    def remove(self, value: kinds.StoredObject) -> None:
        change = self._editor.replace(kinds.of(value), kinds.key(value), None)
        if change is not None:
            self._pending.append(change)

    def snapshot(self) -> Snapshot:
        return self._editor.snapshot()

    def update(self) -> bool:
        changes, self._pending = self._pending, []
        return self.table.update(changes, self.snapshot())


def world(*values: kinds.StoredObject) -> World:
    service = web()
    made_world = World()
    made_world.put(build.node("n1"), build.node("n2"), service, build.revision(service), *values)
    made_world.table.rebuild(made_world.snapshot())
    made_world.update()
    return made_world


def test_a_change_makes_one_list_with_the_services_that_it_concerns() -> None:
    here = world()
    before = here.table.number
    other = build.service("api")
    here.put(running(), other, build.revision(other))
    assert here.update()
    difference = here.table.since(before)
    assert difference is not None
    assert (here.table.number, {one.name for one in difference.changed}) == (before + 1, {"web", "api"})


def test_what_is_not_concerned_is_not_worked_out_again() -> None:
    """The cost of a change is that of the services that it concerns."""
    here = world()
    for name in ("a", "b", "c"):
        service = build.service(name)
        here.put(service, build.revision(service))
    here.update()
    before = {one.name: one for one in here.table.everything().changed}
    here.put(running())
    here.update()
    after = {one.name: one for one in here.table.everything().changed}
    assert {name for name in before if before[name] is not after[name]} == {"web"}


def test_what_changes_nothing_makes_no_list() -> None:
    task = running()
    here = world(task)
    task.status.restarts = 3
    here.put(task, build.node("n1"))
    assert not here.update()


def test_a_rule_follows_the_service_that_it_names() -> None:
    here = world()
    here.put(web(allow=[pb.AllowRule(**{"from": "api"})]))
    here.update()
    other = build.service("api")
    here.put(other)
    here.update()
    service = here.table.service("default/web")
    assert service is not None
    assert [one.service_id for one in service.allow] == ["id-api"]
    here.remove(other)
    here.update()
    service = here.table.service("default/web")
    assert service is not None
    assert not service.allow


def test_a_service_that_is_made_again_under_its_name_replaces_the_old_one() -> None:
    here = world()
    before = here.table.number
    again = web()
    again.meta.id = "id-new"
    here.put(again)
    here.update()
    difference = here.table.since(before)
    assert difference is not None
    assert ([one.id for one in difference.changed], list(difference.removed)) == (["id-new"], ["id-web"])


def test_who_is_too_far_behind_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_table, "MAX_REMOVED", 1)
    here = world()
    before = here.table.number
    for name in ("a", "b"):
        one = build.service(name)
        here.put(one, build.revision(one))
        here.update()
        here.remove(one)
        here.update()
    assert here.table.since(before) is None
    assert here.table.since(here.table.number) is not None


def test_it_is_known_since_when_a_task_is_not_ready() -> None:
    task = running()
    here = world(task, running(2, ready=False))
    assert here.table.left("web-2-n1") == 1, "what was told before the table was made is not known"
    task.desired_state = pb.DESIRED_STATE_SHUTDOWN
    here.put(task, running(3, ready=False))
    here.update()
    assert here.table.left("web-1-n1") == here.table.number
    assert here.table.left("web-3-n1") == 0, "it never was ready"
    task.status.state = states.SHUTDOWN
    here.put(task)
    here.update()
    assert here.table.left("web-1-n1") == 0, "it is forgotten once it has ended"


def test_a_port_that_two_services_publish_belongs_to_the_older_one() -> None:
    """Two applies in the same moment can pass each other; a node could not load both."""
    here = world()
    for name, created_at in (("old", 1), ("young", 2)):
        service = build.service(name)
        service.meta.created_at = created_at
        service.spec.template.container.ports.add(target=80, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
        here.put(service, build.revision(service))
        here.update()
    assert {key: published_by(here, key) for key in ("old", "young")} == {"old": 8080, "young": 0}
    here.remove(build.service("old"))
    here.update()
    assert published_by(here, "young") == 8080


def published_by(here: World, name: str) -> int:
    service = here.table.service(f"default/{name}")
    assert service is not None
    return service.ports[0].published


NAMES = st.sampled_from(["a", "b", "c"])
EDITS = st.one_of(
    st.tuples(st.just("service"), NAMES, st.lists(NAMES, max_size=2), st.booleans()),
    st.tuples(st.just("task"), NAMES, st.integers(1, 2), st.sampled_from(["n1", "n2"]), st.booleans()),
    st.tuples(st.just("node"), st.sampled_from(["n1", "n2"]), st.sampled_from([READY, LOST, DOWN])),
    st.tuples(st.just("network"), NAMES, st.booleans()),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("remove node"), st.sampled_from(["n1", "n2"])),
)


def edit(here: World, change: tuple[object, ...]) -> None:
    match change:
        case ("service", str(name), [*sources], bool(other)):
            service = build.service(name)
            service.spec.networks[:] = [name] if other else []
            if other:
                service.spec.template.container.ports.add(target=80, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
            for source in sources:
                service.spec.allow.add(**{"from": str(source)})
            here.put(service, build.revision(service))
        case ("task", str(name), int(slot), str(node), bool(ready)):
            revision_id = f"{name}-1-id-{name}"
            ident = f"{name}-{slot}-{node}"
            here.put(
                build.task(slot, of=name, revision_id=revision_id, node=node, ident=ident, address="x", ready=ready)
            )
        case ("node", str(name), int(state)):
            here.put(build.node(name, state=state))  # type: ignore[arg-type]
        case ("network", str(name), bool(internal)):
            meta = pb.Meta(id=name, name=name, namespace="default")
            here.put(pb.Network(meta=meta, spec=pb.NetworkSpec(internal=internal)))
        case ("remove", str(name)):
            here.remove(build.service(name))
            here.remove(pb.Network(meta=pb.Meta(name=name, namespace="default")))
        case ("remove node", str(name)):
            here.remove(build.node(name))


def services_of(table: endpoint_table.Table) -> dict[str, wire.NetworkService]:
    return {one.id: one for one in table.everything().changed}


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(EDITS, max_size=4), st.booleans()), max_size=10))
def test_the_table_is_that_of_its_snapshot_and_differences_lead_to_it(
    history: list[tuple[list[tuple[object, ...]], bool]],
) -> None:
    """However it came there; and an agent that is told differences, some of them late, knows the same."""
    here = World()
    here.table.rebuild(here.snapshot())
    number, known = here.table.number, services_of(here.table)
    for edits, tells in history:
        for one in edits:
            edit(here, one)
        here.update()
        fresh = endpoint_table.Table()
        fresh.rebuild(here.snapshot())
        assert services_of(here.table) == services_of(fresh)
        published = [one for one in services_of(here.table).values() for port in one.ports if port.published]
        assert len(published) <= 1, "a port has one service"
        difference = here.table.since(number)
        assert difference is not None
        if tells:
            known = {**known, **{one.id: one for one in difference.changed}}
            known = {name: one for name, one in known.items() if name not in difference.removed}
            number = difference.number
            assert known == services_of(here.table)
