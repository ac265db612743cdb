"""A global service has one task on each node that fits, through updates, drains and losses."""

from controlplane.core import plan, tasks
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.rollouts import World

COMPLETED, PAUSED = pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_PAUSED
ROLLED_BACK, WAITING = pb.ROLLOUT_STATE_ROLLED_BACK, pb.ROLLOUT_STATE_WAITING


def everywhere(nodes: int = 3, **update: object) -> World:
    """A global service on that many nodes."""
    world = World(replicas=0, update=pb.UpdatePolicy(monitor=1, **update))  # type: ignore[arg-type]  # fields by name
    changed = plan.copy(world.service)
    changed.spec.mode = pb.SERVICE_MODE_GLOBAL
    world.shelf.put(changed)
    for number in range(1, nodes + 1):
        world.shelf.put(build.node(f"n{number}"))
    world.steps(4)
    return world


def homes(world: World) -> list[str]:
    return sorted(task.node_id for task in world.tasks if tasks.is_ready(task))


def label(world: World, name: str, disk: str) -> None:
    node = plan.copy(next(one for one in world.shelf.all(pb.Node) if one.meta.name == name))
    node.meta.labels["disk"] = disk
    world.shelf.put(node)


def change_node(world: World, name: str, **fields: int) -> None:
    node = plan.copy(next(one for one in world.shelf.all(pb.Node) if one.meta.name == name))
    node.spec.availability = fields.get("availability", node.spec.availability)  # type: ignore[assignment]
    node.status.state = fields.get("state", node.status.state)  # type: ignore[assignment]
    world.shelf.put(node)


def test_one_task_on_each_node_and_on_those_that_join() -> None:
    world = everywhere()
    assert homes(world) == ["n1", "n2", "n3"]
    assert {task.meta.name.rsplit("-", 1)[0] for task in world.tasks} == {"web-n1", "web-n2", "web-n3"}
    assert world.service.status.message == "3 of 3 ready"
    world.shelf.put(build.node("n4"))
    world.steps(2)
    assert homes(world) == ["n1", "n2", "n3", "n4"]


def test_a_drained_node_loses_its_task_and_a_paused_one_keeps_it() -> None:
    world = everywhere()
    change_node(world, "n1", availability=pb.AVAILABILITY_DRAIN)
    change_node(world, "n2", availability=pb.AVAILABILITY_PAUSE)
    world.apply("good:2")
    world.steps(12)
    assert homes(world) == ["n2", "n3"]
    assert world.images() == ["good:1", "good:2"], "a paused node gets no new task"
    assert world.rollout.state == COMPLETED
    change_node(world, "n2", availability=pb.AVAILABILITY_ACTIVE)
    world.steps(6)
    assert world.images() == ["good:2", "good:2"]


def test_a_node_that_is_paused_with_two_tasks_holds_up_no_other() -> None:
    """Both stay while it is paused; the update goes on elsewhere, and there when it is active again."""
    world = everywhere(2)
    world.apply("good:2")
    world.look()
    change_node(world, "n1", availability=pb.AVAILABILITY_PAUSE)
    world.steps(8)
    assert homes(world) == ["n1", "n1", "n2"]
    assert world.images()[2] == "good:2"
    change_node(world, "n1", availability=pb.AVAILABILITY_ACTIVE)
    world.steps(3)
    assert world.images() == ["good:2", "good:2"]


def test_it_follows_its_constraints_and_the_labels_of_nodes() -> None:
    """A node that comes to fit gets a task; one that fits no more loses its own."""
    world = everywhere()
    changed = plan.copy(world.service)
    changed.spec.template.placement.constraints.append("node.labels.disk == ssd")
    world.shelf.put(changed)
    world.steps(6)
    assert homes(world) == []
    label(world, "n2", "ssd")
    label(world, "n3", "ssd")
    world.steps(4)
    assert homes(world) == ["n2", "n3"]
    label(world, "n2", "hdd")
    world.steps(4)
    assert homes(world) == ["n3"]


def test_of_half_of_them_may_be_missing_in_an_update_half_are() -> None:
    """Of four, two; a new task is never beside an old one of its node, which has the port."""
    world = everywhere(4, order=pb.UPDATE_ORDER_STOP_FIRST, max_unavailable="50%")
    world.apply("good:2")
    fewest = 4
    for _ in range(12):
        world.step()
        fewest = min(fewest, len(homes(world)))
    assert world.images() == ["good:2"] * 4
    assert fewest == 2


def test_what_a_lost_node_had_is_not_made_anywhere_else() -> None:
    world = everywhere()
    lost = next(task for task in world.tasks if task.node_id == "n1")
    change_node(world, "n1", state=pb.NODE_STATE_DOWN)
    world.end(lost, states.ORPHANED)
    world.steps(5)
    assert homes(world) == ["n2", "n3"]
    assert world.service.status.settled
    change_node(world, "n1", state=pb.NODE_STATE_READY)
    world.steps(3)
    assert homes(world) == ["n1", "n2", "n3"]


def test_a_canary_is_one_node_until_it_is_promoted() -> None:
    world = everywhere(4, canary=1)
    world.apply("good:2")
    world.until(WAITING)
    world.steps(5)
    assert world.images() == ["good:2", "good:1", "good:1", "good:1"]
    world.ask(api.ROLLOUT_ACTION_PROMOTE)
    world.until(COMPLETED)
    assert world.images() == ["good:2"] * 4


def test_a_node_that_joins_after_a_rollback_gets_the_good_revision() -> None:
    world = everywhere(on_failure=pb.UPDATE_FAILURE_ACTION_ROLLBACK)
    world.apply("broken:2")
    world.until(ROLLED_BACK)
    assert world.images() == ["good:1"] * 3
    assert world.rollout.failed == 1, "one node at a time"
    world.shelf.put(build.node("n4"))
    world.steps(5)
    assert world.images() == ["good:1"] * 4


def test_blue_and_green_stand_on_every_node_until_all_of_the_new_ones_are_ready() -> None:
    world = everywhere(parallelism=0)
    world.apply("slow:2")
    world.step()
    new = [task for task in world.unended if not tasks.is_ready(task)]
    assert sorted(task.target_node_id for task in new) == ["n1", "n2", "n3"]
    for task in new[:2]:
        world.make_ready(task)
    world.steps(5)
    assert sorted(world.images()) == ["good:1"] * 3 + ["slow:2"] * 2
    world.make_ready(new[2])
    world.until(COMPLETED)
    assert world.images() == ["slow:2"] * 3


def test_a_node_on_which_the_new_task_never_starts_ends_the_rollout_at_the_deadline() -> None:
    world = everywhere(progress_deadline=30_000)
    world.apply("unplaced:2")
    world.steps(29)
    assert world.rollout.state == pb.ROLLOUT_STATE_ROLLING
    world.steps(3)
    assert world.rollout.state == PAUSED
    assert "no further task became ready for 30s" in world.rollout.reason
    assert world.images() == ["good:1"] * 3
