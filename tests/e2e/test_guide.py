"""docs/network.md does what it says: commands succeed, manifests are taken, refusals are worded like that."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import cluster
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

PAGE = (cluster.ROOT / "docs/network.md").read_text()
COMMANDS = re.findall(r"^    ((?:orchctl|curl) .+)$", PAGE, re.MULTILINE)
MANIFESTS = re.findall(r"^```yaml\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SAID = re.findall(r"^\| `(.+?)` \|", PAGE.partition("## What is refused")[2].partition("## ")[0], re.MULTILINE)

SERVICE = "kind: Service\nmeta: {name: rival}\nspec: {%s template: {container: {image: hello, ports: [{%s}]}}}\n"
APPLY = ("apply", "-f", "-")
REFUSED = {
    "port 18082/tcp is published": (APPLY, SERVICE % ("", "target: 1, published: 18082")),
    "there is no network": (APPLY, SERVICE % ("networks: [nowhere],", "target: 1")),
    "every namespace has a network": (APPLY, "kind: Network\nmeta: {name: default}\n"),
    "the service has no port": (
        APPLY,
        SERVICE % ("allow: [{from: web, ports: [htp]}],", "name: http, target: 1"),
    ),
    "SCTP is not supported": (APPLY, SERVICE % ("", "target: 1, protocol: sctp")),
    "Network shop/back is used": (("delete", "network", "-n", "shop", "back"), ""),
}
"""What to do for a message of the page to be said, by how the message begins."""


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with cluster.running() as up:
        yield up


def test_every_refusal_is_worded_as_the_page_has_it(local: LocalCluster) -> None:
    """Each in the table, and nothing is applied."""
    local.orchctl("apply", "-f", "manifests/examples/shop")
    assert len(SAID) == len(REFUSED)
    for message in SAID:
        (done,) = (done for beginning, done in REFUSED.items() if message.startswith(beginning))
        arguments, text = done
        assert message in local.refusal(*arguments, text=text)
    assert not local.tasks("rival")


def test_its_manifests_are_taken(local: LocalCluster) -> None:
    """Without a warning; and what finds no node says what the page says."""
    local.orchctl("apply", "-f", "manifests/examples/shop")
    text = "---\n".join(MANIFESTS)
    assert "warning" not in local.orchctl("apply", "-f", "-", text=text)
    local.await_whole("guest", 2)
    local.orchctl("scale", "guest=4", "--detach")
    message = "port 18091 is taken by Service default/guest"
    assert message in PAGE
    until(lambda: message in local.orchctl("describe", "service", "guest"), what="the fourth says why it waits")
    local.orchctl("delete", "-f", "-", text=text)


def test_its_commands_succeed_one_after_the_other(local: LocalCluster) -> None:
    """The last one takes everything away again."""
    assert len(COMMANDS) >= 10
    for command in COMMANDS:
        words = command.split()
        if "TASK" in words:
            words[words.index("TASK")] = local.tasks("web")[0].meta.name
        if words[0] == "orchctl":
            local.orchctl(*words[1:])
        else:
            check_answers(local, words)
    assert not local.tasks("web")


def check_answers(local: LocalCluster, words: list[str]) -> None:
    """`curl` of any node shows lines that begin as those of the page do."""
    for node in local.nodes().values():
        asked = [word.replace("NODE", node.address) for word in words]
        said = subprocess.run([*asked, "-sS"], capture_output=True, text=True, timeout=20, check=True).stdout
        assert [line.partition(":")[0] for line in said.splitlines()] == ["web", "cache", "api", "database"]
