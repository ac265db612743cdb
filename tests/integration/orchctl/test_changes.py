"""Changing objects as people do, against a real control plane and its etcd: stacks, conflicts, labels, the editor.

There is no node in it: services stay as they are asked for, and nothing runs.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchctl import client
from protos.orch.v1 import control_pb2 as control
from tests.support import control_process, orchctl
from tests.support.orchctl import Result
from tests.support.waiting import until

pytestmark = pytest.mark.etcd

Run = Callable[..., Result]

WEB = """\
kind: Service
meta: {name: web, labels: {tier: front}}
spec: {replicas: 2, networks: [back], template: {container: {image: hello, imagePullPolicy: never}}}
"""
API = WEB.replace("web", "api").replace("front", "back")
BACK = "kind: Network\nmeta: {name: back}\n"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with control_process.running() as running:
        yield running


def namespace_of(request: pytest.FixtureRequest) -> str:
    return re.sub("[^a-z]", "-", request.node.name)[-50:].strip("-")


@pytest.fixture
def run(address: str, tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """In a namespace of the test's own."""
    environ = orchctl.environment(tmp_path, address)
    namespace = namespace_of(request)

    def with_namespace(*arguments: str, stdin: str = "", editor: str = "false") -> Result:
        return orchctl.run({**environ, "EDITOR": editor, "VISUAL": ""}, "-n", namespace, *arguments, stdin=stdin)

    return with_namespace


def apply(run: Run, *manifests: str, options: tuple[str, ...] = (), code: int = 0) -> Result:
    result = run("apply", "-f", "-", "--detach", *options, stdin="---\n".join(manifests))
    assert result.code == code, result
    return result


def names(run: Run, *arguments: str) -> list[str]:
    return run("get", *arguments, "-o", "name").out.split()


def test_a_stack_loses_what_its_files_do_not_have(run: Run) -> None:
    """In any order of the files, and only once somebody has agreed."""
    stack = ("--stack", "shop")
    apply(run, WEB, API, BACK, options=stack)
    apply(run, WEB.replace("web", "other").replace(", networks: [back]", ""))
    alone = WEB.replace(", networks: [back]", "")
    shown = run("diff", "-f", "-", *stack, "--prune", stdin=alone)
    assert shown.code == 1
    assert "--- service/api (now)" in shown.out
    assert "-kind: Network" in shown.out
    refused = apply(run, alone, options=(*stack, "--prune"), code=2)
    assert "these would be deleted, and there is nobody to ask: service/api, network/back" in refused.err
    assert names(run, "services") == ["service/api", "service/other", "service/web"]
    applied = apply(run, alone, options=(*stack, "--prune", "--yes"))
    assert applied.out.splitlines()[0] == "service/web changed"
    assert applied.out.splitlines()[-2:] == ["service/api pruned", "network/back pruned"]
    until(lambda: names(run, "services") == ["service/other", "service/web"], what="the service goes", timeout_s=20)
    assert names(run, "networks") == []
    assert apply(run, alone, options=(*stack, "--prune")).out == "service/web unchanged\n", "nothing to ask about"


def test_a_person_is_asked_before_something_is_pruned(
    run: Run, tmp_path: Path, address: str, request: pytest.FixtureRequest
) -> None:
    """At a terminal: `n` changes nothing, `y` does."""
    apply(run, BACK, API, options=("--stack", "shop"))
    (tmp_path / "back.yaml").write_text(BACK)
    line = ("apply", "-f", str(tmp_path / "back.yaml"), "--stack", "shop", "--prune", "--detach")
    for answer, code, left in (("n", 1, ["service/api"]), ("y", 0, [])):
        master, slave = os.openpty()
        os.write(master, f"{answer}\n".encode())
        asked = subprocess.run(
            orchctl.command("-n", namespace_of(request), *line),
            env=orchctl.environment(tmp_path, address),
            stdin=slave,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        os.close(master)
        os.close(slave)
        assert asked.returncode == code, asked
        assert "to be deleted:\n  service/api\nDelete them? [y/N]: " in asked.stderr
        until(lambda left=left: names(run, "services") == left, what="what was agreed to is so", timeout_s=20)  # type: ignore[misc]  # the default binds it


def test_a_prune_that_cannot_be_whole_changes_nothing(run: Run) -> None:
    """A service outside the stack is in its network."""
    apply(run, BACK, options=("--stack", "shop"))
    apply(run, API)
    rest = WEB.replace(", networks: [back]", "")
    refused = apply(run, rest, options=("--stack", "shop", "--prune", "--yes"), code=1)
    assert "back is used by Service" in refused.err
    assert names(run, "services,networks") == ["service/api", "network/back"]


def test_an_exported_manifest_is_held_against_what_is_there(run: Run) -> None:
    apply(run, BACK, WEB)
    mine = run("get", "service", "web", "-o", "yaml").out.replace("image: hello", 'image: "hello:2"')
    assert "version:" in mine
    run("scale", "web=5", "--detach")
    refused = apply(run, mine, code=1)
    assert "the change was made to version" in refused.err
    assert "--force applies it anyway" in refused.err
    assert run("diff", "-f", "-", stdin=mine).code == 1, "a look is never refused"
    assert "replicas: 5 → 2" in apply(run, mine, options=("--force",)).out


def test_what_changes_nothing_writes_nothing(run: Run, address: str) -> None:
    """The store's revision stands still: for the whole of it, once the leader has seen the service."""

    def revision() -> int:
        with client.connect(address) as stub:
            return stub.Version(control.VersionRequest(), timeout=5).revision

    def settle() -> int:
        """The revision that stays for some seconds' worth of looks."""
        seen: list[int] = []

        def same() -> int | None:
            seen.append(revision())
            return seen[-1] if len(seen) > 20 and len(set(seen[-20:])) == 1 else None

        return until(same, what="the cluster comes to rest", timeout_s=20)

    apply(run, BACK, WEB)
    before = settle()
    assert apply(run, WEB, BACK).out == "service/web unchanged\nnetwork/back unchanged\n"
    apply(run, WEB.replace("replicas: 2, ", ""))
    run("label", "service", "web", "tier=front")
    run("scale", "web=2", "--detach")
    run("edit", "service", "web", editor="true")
    assert run("diff", "-f", "-", stdin=WEB).code == 0
    assert settle() == before


def test_labels_and_annotations(run: Run) -> None:
    apply(run, BACK, WEB)
    assert (
        run("label", "service/web", "network/back", "team=blue").out == "service/web labelled\nnetwork/back labelled\n"
    )
    refused = run("label", "service", "web", "team=red", "new=1")
    assert refused.code == 1
    assert "has the label team=blue already" in refused.err
    assert run("label", "service", "web", "team=red", "tier-", "--overwrite").out == "service/web labelled\n"
    assert run("label", "service", "web", "team=red").out == "service/web unchanged\n"
    assert run("annotate", "service", "web", "owner=Ann, phone 42").out == "service/web annotated\n"
    (web,) = json.loads(run("get", "services", "-l", "team in (red, green),!tier", "-o", "json").out)
    assert (web["meta"]["labels"], web["meta"]["annotations"]) == ({"team": "red"}, {"owner": "Ann, phone 42"})
    assert run("label", "service", "web", "colour=not a value").code == 2


def test_lists_are_sorted(run: Run) -> None:
    for number, replicas in ((2, 1), (10, 3), (9, 2)):
        apply(run, WEB.replace("web", f"web-{number}").replace("replicas: 2", f"replicas: {replicas}"), BACK)
    assert names(run, "services", "--sort-by", "NAME") == ["service/web-2", "service/web-9", "service/web-10"]
    assert names(run, "services", "--sort-by", "-spec.replicas") == ["service/web-10", "service/web-9", "service/web-2"]
    assert names(run, "services", "--sort-by", "age") == ["service/web-9", "service/web-10", "service/web-2"]
    assert run("get", "services", "-l", "==").code == 2
    for wrong in ("size", "spec.replicass", "spec.template"):
        refused = run("get", "services", "--sort-by", wrong)
        assert refused.code == 2, refused
        assert "hint: " in refused.err


def sed(folder: Path, *scripts: str) -> str:
    """An editor that replaces, once by each script in turn; then it leaves the text as it is."""
    steps = " ; ".join(
        f"elif [ $n = {number} ]; then sed -i -E {shlex.quote(one)} $1" for number, one in enumerate(scripts)
    )
    file = folder / f"edits-{len(list(folder.glob('edits-*')))}"
    file.write_text("0")
    count = f"n=$(cat {file}); echo $((n + 1)) > {file}"
    return f"sh -c {shlex.quote(f'{count}; if false; then : ; {steps} ; fi')} editor"


def test_an_object_is_edited(run: Run, tmp_path: Path) -> None:
    apply(run, BACK, WEB)
    changed = run("edit", "service", "web", "--detach", editor=sed(tmp_path, "s/replicas: 2/replicas: 4/"))
    assert (changed.code, changed.out) == (0, "  spec.replicas: 2 → 4\nservice/web changed\n"), changed
    assert run("edit", "service", "web", editor="true").out == "service/web unchanged\n"
    failed = run("edit", "service", "web", editor="false")
    assert (failed.code, "the editor ended with exit code 1" in failed.err) == (1, True)
    assert run("edit", "task", "web", editor="true").code == 2


def test_a_mistake_opens_the_editor_again_with_the_reason(run: Run, tmp_path: Path) -> None:
    """The reason stands above the text; giving up keeps it."""
    apply(run, BACK, WEB)
    corrected = run(
        "edit",
        "service",
        "web",
        "--detach",
        editor=sed(tmp_path, "s/replicas: 2/replicas: many/", "s/^  replicas: many/  replicas: 3/"),
    )
    assert corrected.out == "  spec.replicas: 2 → 3\nservice/web changed\n", corrected
    given_up = run("edit", "service", "web", editor=sed(tmp_path, "s/replicas: 3/replicas: many/"))
    assert given_up.code == 1
    assert "it was refused, and not changed since" in given_up.err
    kept = Path(given_up.err.split("your text is in ")[1].strip())
    text = kept.read_text()
    kept.unlink()
    assert "# It was refused: it cannot be applied" in text
    assert re.search(r"^# the edited text:\d+:\d+: spec.replicas: ", text, re.MULTILINE)
    assert "replicas: many" in text


def test_a_change_by_somebody_else_is_shown_in_the_editor(
    run: Run, tmp_path: Path, address: str, request: pytest.FixtureRequest
) -> None:
    apply(run, BACK, WEB)
    environ = orchctl.environment(tmp_path, address)
    scale = shlex.join(orchctl.command("-n", namespace_of(request), "scale", "web=7", "--detach"))
    variables = " ".join(f"{key}={shlex.quote(environ[key])}" for key in ("ORCH_SERVER", "ORCH_CONFIG", "PYTHONPATH"))
    first = f"if [ ! -e {tmp_path}/once ]; then touch {tmp_path}/once; {variables} {scale}; sed -i s/hello/hi/ $1; "
    second = f"else cp $1 {tmp_path}/second; sed -i s/hi/ho/ $1; fi"
    edited = run("edit", "service", "web", "--detach", editor=f"sh -c {shlex.quote(first + second)} editor")
    assert edited.code == 0, edited
    seen = (tmp_path / "second").read_text()
    assert "# Somebody else has changed it since you opened it." in seen
    assert "# +  replicas: 7" in seen
    assert "spec.replicas: 7 → 2" in edited.out, "the text that was saved is what counts"


def test_many_objects_are_waited_for_together(run: Run) -> None:
    """More than a watch takes selections."""
    many = [WEB.replace("web", f"web-{number}") for number in range(40)]
    apply(run, BACK, *many)
    gone = run("delete", "-f", "-", "--timeout", "30s", stdin="---\n".join([BACK, *many]))
    assert gone.code == 0, gone
    assert names(run, "services,networks") == []


def chain(*, label: str = "front") -> list[str]:
    """Three services, of which each depends on the one before; a network that all are in."""
    after = [WEB.replace("spec: {", f"spec: {{dependsOn: {{{name}: ready}}, ") for name in ("b", "a")]
    services = [WEB.replace("web", "b"), after[0].replace("web", "a"), after[1].replace("web", "c")]
    return [BACK, *(one.replace("front", label) for one in services)]


def asked_for(result: Result) -> list[str]:
    assert result.code == 0, result
    return re.findall(r"(\S+) is being deleted", result.out)


def test_what_depends_on_others_is_deleted_before_them(run: Run) -> None:
    """By names, by labels and by files, in whatever order they are written; the network goes after its services."""
    dependents_first = ["service/c", "service/a", "service/b"]
    for asking in (["service", "b", "a", "c"], ["services", "-l", "tier=front"]):
        apply(run, *chain())
        assert asked_for(run("delete", *asking, "--detach")) == dependents_first
        assert run("wait", "service/a", "service/b", "service/c", "--for=deleted", "--timeout", "20s").code == 0
    apply(run, *chain())
    files = run("delete", "-f", "-", "--detach", stdin="---\n".join(reversed(chain())))
    assert asked_for(files) == [*dependents_first, "network/back"]


def test_a_selector_takes_only_what_fits(run: Run) -> None:
    apply(run, BACK, WEB, API)
    assert run("delete", "services", "-l", "tier=front").code == 0
    assert names(run, "services") == ["service/api"]
    none = run("delete", "services", "-l", "tier=front")
    assert (none.code, none.out) == (0, "")
    assert "no service fits 'tier=front'" in none.err
    for wrong in (["service", "api", "-l", "tier=back"], ["service/api", "-l", "tier=back"], ["-l", "tier=back"]):
        assert run("delete", *wrong).code == 2, "names and labels are two ways to say what is meant"
    assert names(run, "services") == ["service/api"]


def test_waiting_for_conditions(run: Run) -> None:
    """No node is there: some things are so at once, and some never."""
    apply(run, BACK, WEB)
    assert run("wait", "service", "web", "--for=spec.replicas=2").code == 0
    late = run("wait", "service/web", "--for=ready", "--timeout", "1s")
    assert late.code == 1
    assert "not ready after 1s" in late.err
    assert run("wait", "service", "web", "--for=status.ready=0").code == 0
    assert run("wait", "service", "gone", "--for=deleted").code == 0
    run("delete", "service", "web", "--detach")
    assert run("wait", "service", "web", "--for=deleted", "--timeout", "20s").code == 0
    for wrong in ("red", "spec.replicass=2", "spec=2"):
        assert run("wait", "network", "back", f"--for={wrong}").code == 2


def test_what_people_do_is_told_with_who_did_it(run: Run) -> None:
    apply(run, BACK, WEB)
    run("scale", "web=3", "--detach")
    run("label", "service", "web", "team=blue")
    run("delete", "service", "web", "--detach")
    told = json.loads(run("events", "--for", "service/web", "-o", "json").out)
    by_people = [event for event in told if "actor" in event["status"]]
    assert [event["status"]["reason"] for event in by_people] == ["Created", "Scaled", "Labelled", "Deleted"]
    assert all("@" in event["status"]["actor"] for event in by_people)
    assert by_people[1]["status"]["message"] == "2 → 3 replicas"
    until(
        lambda: "Gone" in run("events", "--for", "service/web").out,
        what="the leader tells what became of it",
        timeout_s=20,
    )
    assert "LeaderElected" in run("events").out, "what concerns the cluster concerns everybody"
    warnings = run("events", "--for", "service/web", "--since", "1h", "--type", "warning").out
    assert "Scaled" not in warnings
    assert "Scaled" not in run("events", "--for", "network/back").out
    assert "Scaled" in run("describe", "network", "back").out + run("events", "-o", "wide").out
