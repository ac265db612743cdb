"""What a manifest may say of a container's isolation, and how it is told that it may not."""

from collections.abc import Mapping

import pytest

import manifests
from manifests import Unloadable, seccomp
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts
from tests.unit.manifests.test_rules import problems

ALLOW = '{"defaultAction": "SCMP_ACT_ALLOW"}'
OTHERS = "is the whole node's, and a change would be felt by every container"
NAMED = '{"names": ["read"], "action": "SCMP_ACT_ALLOW"'


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        ("capabilities: {drop: [ALL], add: [CAP_NET_ADMIN, CHOWN]}", []),
        ("capabilities: {add: [MKNDO]}", ['capabilities.add[0]: no capability "MKNDO"; did you mean "MKNOD"?']),
        ("capabilities: {drop: [chown]}", ['capabilities.drop[0]: no capability "chown"; did you mean "CHOWN"?']),
        ("capabilities: {add: [XYZZY]}", ['capabilities.add[0]: no capability "XYZZY"; see capabilities(7)']),
        (
            "capabilities: {drop: [CHOWN], add: [CAP_CHOWN]}",
            ["capabilities.add[0]: CAP_CHOWN is dropped, too; remove one of them"],
        ),
        ("privileged: true", []),
        ("{privileged: true, userns: host, seccomp: unconfined, devices: [{path: /dev/a}]}", []),
        (
            "{privileged: true, capabilities: {drop: [ALL]}, userns: auto, seccomp: default}",
            [
                "capabilities: a privileged container has all capabilities; remove capabilities or privileged",
                "userns: a privileged container has the users of the node; remove userns or privileged",
                "seccomp: a privileged container has no filter of system calls; remove seccomp or privileged",
            ],
        ),
        ("devices: [{path: /dev/net/tun, containerPath: /dev/tun, permissions: rm}]", []),
        (
            "devices: [{path: /etc/passwd}, {permissions: x}]",
            [
                'devices[0].path: "/etc/passwd" is not allowed; write a path below /dev',
                "devices[1].path: missing",
                'devices[1].permissions: "x" is not allowed; write letters of rwm',
            ],
        ),
        (
            "devices: [{path: /dev/../etc/x}]",
            ["devices[0].path: not a plain path; write it without . and .."],
        ),
        (
            "devices: [{path: /dev/a}, {path: /dev/b, containerPath: /dev/a}]",
            ["devices[1]: is at the same place as devices[0]"],
        ),
        ("sysctls: {net.core.somaxconn: 1024, kernel.shm_rmid_forced: 1, fs.mqueue.msg_max: 1}", []),
        (
            "sysctls: {kernel.panic: 1}",
            [f'sysctls["kernel.panic"]: {OTHERS}; set it on the node itself'],
        ),
        (
            "sysctls: {kernel.hostname: a}",
            [f'sysctls["kernel.hostname"]: {OTHERS}; write hostname'],
        ),
        (
            "sysctls: {net/../kernel: 1, net.a..b: 1}",
            [
                'sysctls["net/../kernel"]: not a kernel parameter\'s name; write it like net.core.somaxconn',
                'sysctls["net.a..b"]: not a kernel parameter\'s name; write it like net.core.somaxconn',
            ],
        ),
        ('sysctls: {net.core.somaxconn: ""}', ['sysctls["net.core.somaxconn"]: needs a value of one line']),
        ("tmpfs: {/tmp: {size: 1Mi, mode: 0755}, /run: {}}", []),
        (
            "tmpfs: {/tmp/: {}, a b: {}, /: {}, /a/../b: {}}",
            [
                f'tmpfs["{path}"]: not a folder; write an absolute path without . and .. and without a / at its end'
                for path in ("/tmp/", "a b", "/", "/a/../b")
            ],
        ),
        ("tmpfs: {/dev/shm: {}}", ['tmpfs["/dev/shm"]: the system mounts what is there; write shmSize']),
        ("tmpfs: {/proc/x: {}}", ['tmpfs["/proc/x"]: the system mounts what is there; choose another folder']),
        (
            "tmpfs: {/a: {mode: rwx}}",
            ['tmpfs["/a"].mode: "rwx" is not allowed; write three or four octal digits, such as 1777 or 0700'],
        ),
        ("{user: app, init: true, allowPrivilegeEscalation: true, shmSize: 1Gi, oomScoreAdj: -1000}", []),
        ("oomScoreAdj: 1001", ["oomScoreAdj: 1001 is too big, the most is 1000"]),
        ("shmSize: 1", ["shmSize: 1 is too small, the least is 4Ki"]),
        ('user: "-1"', ['user: "-1" is not allowed; write name, uid, name:group or uid:gid']),
        ('user: " 1000"', ['user: " 1000" is not allowed; write name, uid, name:group or uid:gid']),
        ("userns: own", ['userns: "own" is not a known word; write "auto" or "host"']),
        ("seccomp: default", []),
        (f"seccomp: '{ALLOW}'", []),
        (
            "seccomp: unconfied",
            ['seccomp: "unconfied" is not a filter of system calls; did you mean "unconfined"?'],
        ),
    ],
)  # fmt: skip
def test_rules_of_isolation(lines: str, complaints: list[str]) -> None:
    """One line each: the field, what is wrong, the remedy."""
    if lines.startswith("{"):
        lines = lines[1:-1]
        lines = "\n".join(_top_level(lines))
    assert sorted(problems(lines)) == sorted(complaints)


def _top_level(flow: str) -> list[str]:
    """`a: {b: c, d: e}, f: g` → its two entries, so that a row may hold several fields."""
    parts, depth = [""], 0
    for character in flow:
        depth += (character in "{[") - (character in "}]")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        ("{}", "defaultAction: what is there is not known; known are SCMP_ACT_ALLOW, "),
        ('{"defaultAction": "SCMP_ACT_ALOW"}', 'defaultAction: "SCMP_ACT_ALOW" is not known; did you mean'),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "defaultAction: SCMP_ACT_NOTIFY needs a program that answers; use"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscals": []}', 'syscals: unknown field; did you mean "syscalls"?'),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}', "syscalls: a value of another type"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}', "listenerPath: unknown field; known are"),
        (ALLOW[:-1] + ', "syscalls": [1]}', "syscalls[0]: not a JSON object"),
        (ALLOW[:-1] + ', "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}', "syscalls[0].names: needs at least one"),
        (ALLOW[:-1] + f', "syscalls": [{NAMED}, "args": [{{"op": "EQ"}}]}}]}}', 'syscalls[0].args[0].op: "EQ" is not'),
        (ALLOW[:-1] + f', "syscalls": [{NAMED}, "includes": {{"cap": []}}}}]}}', "syscalls[0].includes.cap: unknown"),
        (ALLOW[:-1] + f', "syscalls": [{NAMED}, "includes": {{"minKernel": "x"}}}}]}}', "syscalls[0].includes.minK"),
        ('{"a":' * 100_000, "not a profile: values inside values are too deep"),
    ],
)  # fmt: skip
def test_what_is_no_profile(profile: str, complaint: str) -> None:
    """The place inside the profile is named."""
    message, hint = seccomp.problem(profile)
    assert f"{message}; {hint}".startswith(complaint)


FILES: Mapping[tuple[str, str], str] = {
    ("shop/web.yaml", "./good.json"): '{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}\n',
    ("shop/web.yaml", "bad.json"): '{"defaultAction": "?"}',
}


def load(manifest: str, path: str) -> str:
    if (manifest, path) not in FILES:
        raise Unloadable(f"cannot read {path}", "look again")
    return FILES[manifest, path]


def read(seccomp_line: str) -> pb.Container:
    text = texts.container(f"seccomp: {seccomp_line}").encode()
    (service,) = manifests.read([manifests.Source(name="shop/web.yaml", text=text)], load=load).objects
    assert isinstance(service, pb.Service)
    return service.spec.template.container


def mistake(seccomp_line: str) -> str:
    with pytest.raises(manifests.InvalidManifest) as caught:
        read(seccomp_line)
    (found,) = caught.value.mistakes
    assert found.file == "shop/web.yaml"
    assert (found.line, found.column) > (1, 1)
    return str(found).partition("seccomp: ")[2]


def test_the_path_of_a_profile_is_replaced_by_what_the_file_holds() -> None:
    """So that the object means the same on every machine; printed and read again it is the same."""
    assert read("./good.json").seccomp == FILES["shop/web.yaml", "./good.json"]
    assert read("unconfined").seccomp == "unconfined"
    service = pb.Service(meta=pb.Meta(name="a", namespace="default"))
    service.spec.template.container.image = "a"
    service.spec.template.container.seccomp = FILES["shop/web.yaml", "./good.json"]
    printed = manifests.to_yaml(service).encode()
    assert manifests.read([manifests.Source(name="printed", text=printed)]).objects == (service,)


def test_mistakes_of_a_file_are_told_at_the_place_that_names_it() -> None:
    """With the file's name."""
    assert mistake("./none.json") == "cannot read ./none.json; look again"
    assert mistake("bad.json").startswith('"bad.json": defaultAction: "?" is not known; known are')


def test_a_path_means_nothing_where_there_are_no_files() -> None:
    """The API refuses it with the remedy, as does a reader that was given no files."""
    (found,) = manifests.validate(pb.Container(image="a", seccomp="./p.json"))
    assert str(found) == (
        "seccomp: is the path of a file, and an object has to hold what is in it; apply the manifest with "
        "`orchctl apply`, which reads the file"
    )
    with pytest.raises(manifests.InvalidManifest, match=r"the file \./p\.json cannot be read from t here"):
        manifests.read([manifests.Source(name="t", text=texts.container("seccomp: ./p.json").encode())])
