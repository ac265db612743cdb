"""What a manifest may say of volumes and of the places where they are mounted, and how it is told that it may not."""

import textwrap

import pytest

import manifests
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts

CONTAINER = "spec.template.container"
VOLUMES = "spec.template.volumes"
NOT_A_FOLDER = "not a folder; write an absolute path without . and .. and without a / at its end"
SHAPE = "`volumes: [{name: work}]` beside `container`, and `mounts: [{volume: work, path: /work}]` in it"
ONE_VALUE = "a single value instead of a mapping"
WORK = "volumes: [{name: work}]"


def mistakes(container: str, template: str = WORK) -> list[str]:
    """The mistakes of a template with these lines and a main container with those, without their places."""
    text = texts.container(container) + textwrap.indent(template, "    ") + "\n"
    return [one.partition(": ")[2] for one in texts.mistakes(text)]


@pytest.mark.parametrize(
    ("container", "template", "complaints"),
    [
        ("mounts: [{volume: work, path: /srv, readOnly: true}, {volume: work, path: /srv-2}]", WORK, []),
        ("", "volumes: [{name: a}]\ninit: [{name: i, image: x, mounts: [{volume: a, path: /a}]}]", []),
        ("", "volumes: [{name: a}]\nsidecars: [{name: s, image: x, mounts: [{volume: a, path: /a}]}]", []),
        (
            "mounts: [{volume: work, path: /srv}]",
            "volumes: [{name: work}, {name: work}]",
            [f'{VOLUMES}[1].name: "work" is the name of volumes[0]; give it another name, or remove it'],
        ),
        (
            "",
            WORK,
            [
                (
                    f'{VOLUMES}[0]: no container mounts it; write `mounts: [{{volume: "work", path: /FOLDER}}]` in '
                    "one, or remove it"
                )
            ],
        ),
        (
            "mounts: [{volume: wrok, path: /srv}]",
            WORK,
            [f'{CONTAINER}.mounts[0].volume: the task has no volume "wrok"; did you mean "work"?'],
        ),
        (
            'mounts: [{volume: "a\\nb", path: /srv}]',
            WORK,
            [f'{CONTAINER}.mounts[0].volume: the task has no volume "a\\nb"; known are "work"'],
        ),
        (
            "mounts: [{volume: zzz, path: /srv}]",
            "volumes: [{name: work}, {name: other}]",
            [f'{CONTAINER}.mounts[0].volume: the task has no volume "zzz"; known are "work", "other"'],
        ),
        (
            "",
            "sidecars: [{name: s, image: x, mounts: [{volume: work, path: /a}]}]",
            [
                (
                    'spec.template.sidecars[0].mounts[0].volume: the task has no volume "work"; write '
                    '`volumes: [{name: "work"}]` beside `container`'
                )
            ],
        ),
        (
            "mounts: [{volume: work, readOnly: true}, {path: /srv}]",
            WORK,
            [f"{CONTAINER}.mounts[0].path: missing", f"{CONTAINER}.mounts[1].volume: missing"],
        ),
        (
            "mounts: [{volume: Work, path: /srv}]",
            "volumes: [{name: Work}]",
            [
                (
                    f'{VOLUMES}[0].name: "Work" is not allowed; write small letters, digits and '
                    "'-', beginning and ending with a letter or digit"
                )
            ],
        ),
        (
            "mounts: [{volume: work, path: /a, readOnly: ro}]",
            WORK,
            [f'{CONTAINER}.mounts[0].readOnly: "ro" is not true or false'],
        ),
    ],
)
def test_volumes_and_who_mounts_them(container: str, template: str, complaints: list[str]) -> None:
    """One line each, and none for what only follows from another mistake."""
    assert mistakes(container, template) == complaints


@pytest.mark.parametrize(
    ("places", "complaints"),
    [
        (["srv"], [(0, NOT_A_FOLDER)]),
        (["/a/../b", "/srv/", "//srv", "/", "/a/./b"], [(index, NOT_A_FOLDER) for index in range(5)]),
        (
            ["/proc", "/proc/x", "/sys/fs", "/dev", "/etc/hosts", "/etc/resolv.conf"],
            [(index, "the system mounts what is there; choose another folder") for index in range(6)],
        ),
        (["/dev/shm"], [(0, "the system mounts what is there; write shmSize")]),
        (["/process", "/etc", "/etc/hosts.d"], []),
        (["/srv", "/b", "/srv"], [(2, '"/srv" is the place of mounts[0]; choose another folder')]),
        (["/memory"], [(0, '"/memory" is the place of tmpfs["/memory"]; choose another folder')]),
        (["/memory/below", "/srv", "/srv/below"], []),
    ],
)
def test_places(places: list[str], complaints: list[tuple[int, str]]) -> None:
    """Folders of the container that nothing else of it is in."""
    mounts = ", ".join(f"{{volume: work, path: {place}}}" for place in places)
    found = mistakes(f"tmpfs: {{/memory: {{}}}}\nmounts: [{mounts}]")
    assert found == [f"{CONTAINER}.mounts[{index}].path: {complaint}" for index, complaint in complaints]


def test_nothing_is_mounted_inside_what_is_read_only() -> None:
    """Its place could not be made there."""
    found = mistakes(
        "mounts: [{volume: work, path: /a, readOnly: true}, {volume: work, path: /a/b}, {volume: work, path: /ab}, "
        "{volume: work, path: /etc, readOnly: true}]\n"
        "tmpfs: {/a/c: {}}"
    )
    remedy = "choose a folder outside, or mount that one without readOnly"
    assert found == [
        f'{CONTAINER}.mounts[1].path: "/a/b" is inside "/a", which is read-only here; {remedy}',
        (
            f"{CONTAINER}.mounts[3].path: the system mounts /etc/hostname inside it, so it has to be writable; remove "
            "readOnly, or choose another folder"
        ),
        f'{CONTAINER}.tmpfs["/a/c"]: "/a/c" is inside "/a", which is read-only here; {remedy}',
    ]


@pytest.mark.parametrize(
    ("container", "complaints"),
    [
        ("volumes: [a:/b]", [f"volumes: unknown field; the containers of a task share its volumes; write {SHAPE}"]),
        ("volumeMounts: [{name: work, mountPath: /b}]", [f"volumeMounts: unknown field; write {SHAPE}"]),
        (
            "mounts: ['work:/b']",
            ["mounts[0]: a single value instead of a mapping; write it as {volume: work, path: /b}"],
        ),
        (
            "mounts: [work:/b:ro]",
            [f"mounts[0]: {ONE_VALUE}; write it as {{volume: work, path: /b, readOnly: true}}"],
        ),
        ("mounts: [x]", [f"mounts[0]: {ONE_VALUE}; write it as {{volume: NAME, path: /FOLDER}}"]),
        (
            "mounts: [{name: work, mountPath: /b}, {source: work, target: /c, read_only: true}]",
            [
                f'mounts[{index}].{field}: unknown field; did you mean "{meant}"?'
                for index, field, meant in (
                    (0, "name", "volume"),
                    (0, "mountPath", "path"),
                    (1, "source", "volume"),
                    (1, "target", "path"),
                    (1, "read_only", "readOnly"),
                )
            ],
        ),
    ],
)
def test_mounts_as_others_write_them(container: str, complaints: list[str]) -> None:
    """Docker's, compose's and Kubernetes' words are told what they are here."""
    found = mistakes(container, template="")
    assert found == [f"{CONTAINER}.{complaint}" for complaint in complaints]


@pytest.mark.parametrize(
    ("volume", "complaint"),
    [
        ("work", f"[0]: {ONE_VALUE}; write it as {{name: work}}"),
        (
            "{name: work, emptyDir: {}}",
            "[0].emptyDir: unknown field; remove it: every volume begins as an empty folder, and is gone with its task",
        ),
        (
            "{name: work, hostPath: {path: /}}",
            (
                "[0].hostPath: unknown field; remove it: folders of the node are not mounted; every volume begins as "
                "an empty folder"
            ),
        ),
        (
            "{name: work, persistentVolumeClaim: {}}",
            "[0].persistentVolumeClaim: unknown field; remove it: no volume outlives its task yet",
        ),
    ],
)
def test_volumes_as_others_write_them(volume: str, complaint: str) -> None:
    found = mistakes("mounts: [{volume: work, path: /b}]", f"volumes: [{volume}]")
    assert found == [f"{VOLUMES}{complaint}"]


def test_a_change_of_volumes_is_a_change_of_the_template() -> None:
    """So that it is rolled out, and `diff` and the history tell of it."""
    before, after = pb.Service(), pb.Service()
    before.spec.template.container.mounts.add(volume="work", path="/srv")
    after.spec.template.container.mounts.add(volume="work", path="/srv", read_only=True)
    after.spec.template.volumes.add(name="work")
    assert [*manifests.changes(before, after)] == [
        "spec.template.container.mounts[0].readOnly: (none) → true",
        'spec.template.volumes[0].name: (none) → "work"',
    ]
