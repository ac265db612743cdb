"""What a node may fetch, as far as an instance can tell: also while it has not got everything itself."""

from pathlib import Path

import pytest

from controlplane.core import request_errors as errors
from protos.orch.v1 import objects_pb2 as pb
from tests.support import aio, api_world, pushing

NO_BLOB = f"sha256:{'0' * 64}"


async def runs_web(world: api_world.World, digest: str) -> None:
    """Node `n1` has a task of an image that its revision has settled."""
    revision = pb.Revision(meta=pb.Meta(id="r1", name="r1", namespace="default"), service="web")
    revision.template.container.image, revision.images["web:1"] = "web:1", digest
    task = pb.Task(meta=pb.Meta(id="t1", name="t1", namespace="default"), revision_id="r1", node_id="n1")
    await world.put(revision, task)


@aio.bounded(30)
async def test_an_image_that_has_lost_its_name_is_fetched_by_the_nodes_that_run_it(tmp_path: Path) -> None:
    """Each blob of it, and nothing else; whoever does not run it gets none."""
    mine = pushing.made(tmp_path / "mine")
    image = mine.resolve("web:1")
    async with api_world.opened(tmp_path, known=()) as world:
        pushed = (await pushing.push(world.stub, mine, "web:1")).image
        await runs_web(world, image.digest)
        await world.remove(pushed)
        rights = world.images.rights
        for digest in (image.digest, image.config_digest, image.layers[0].digest):
            await rights.check_blob("n1", digest)
            with pytest.raises(errors.Forbidden, match="no task of the node n2"):
                await rights.check_blob("n2", digest)
        with pytest.raises(errors.Forbidden, match="no task of the node n1"):
            await rights.check_blob("n1", NO_BLOB)


@aio.bounded(30)
async def test_what_an_instance_cannot_tell_yet_is_refused_for_now_and_answered_later(tmp_path: Path) -> None:
    """It has not got the manifest: which layers belong to it is not known here, and not never."""
    mine = pushing.made(tmp_path / "mine")
    image = mine.resolve("web:1")
    layer = image.layers[0].digest
    async with api_world.opened(tmp_path, known=()) as world:
        await runs_web(world, image.digest)
        rights = world.images.rights
        await rights.check_blob("n1", image.digest)
        with pytest.raises(errors.NotReachable, match="not known here yet"):
            await rights.check_blob("n1", layer)
        world.images.store.put_bytes(mine.read_document(image.digest))
        await rights.check_blob("n1", layer)  # nodes that have it already may be told of
        await pushing.push(world.stub, mine, "web:1")
        await rights.check_blob("n1", layer)
