"""What a node has a number of, and what a container hears of its share."""

import argparse
from pathlib import Path

import pytest

from agent import node, options
from agent.core import container
from protos.orch.v1 import objects_pb2 as pb


def test_a_resource_is_a_name_and_its_ids() -> None:
    assert options._resource("gpu=0,1") == ("gpu", ["0", "1"])


@pytest.mark.parametrize("text", ["gpu", "gpu=", "GPU=1", "gpu=0,0", "gpu=0,,1", "=1", "gpu=a b"])
def test_what_is_no_resource_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=ID"):
        options._resource(text)


def test_a_container_hears_which_ones_it_was_granted() -> None:
    task = pb.Task(granted={"fast-disk": pb.GrantedResources(ids=["a"]), "gpu": pb.GrantedResources(ids=["0", "2"])})
    image = container.PreparedImage(digest="sha256:0", layers=())
    variables = container.environment(
        task, pb.TaskTemplate(), pb.Container(), image, str, node_name="n1", address="10.0.0.1"
    )
    assert "ORCH_RESOURCE_GPU=0,2" in variables
    assert "ORCH_RESOURCE_FAST_DISK=a" in variables


def test_processes_are_what_the_kernel_allows_less_its_own(tmp_path: Path) -> None:
    (tmp_path / "pid_max").write_text("32768\n")
    (tmp_path / "threads-max").write_text("10000\n")
    assert node.processes_at_most(tmp_path) == 10_000 - node.RESERVED_PIDS


def test_a_node_says_how_much_disk_there_is(tmp_path: Path) -> None:
    assert node.disk_for_containers(tmp_path) > 0
