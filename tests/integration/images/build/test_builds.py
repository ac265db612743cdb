"""Builds from end to end: what is written down, bases, contexts, and equal images from equal files."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images import errors, export
from images.build import builder, containers, context, workshop
from images.manifest import Platform
from tests.support import building

if TYPE_CHECKING:
    from tests.support.building import Bench

pytestmark = pytest.mark.root
FROM = "FROM localhost/base\n"
EPOCH = {"SOURCE_DATE_EPOCH": "1600000000"}


@pytest.mark.parametrize("name", ["web@sha256:" + "0" * 64, "web:1@sha256:" + "0" * 64])
def test_a_name_that_pins_a_digest_is_refused_before_anything_is_named(bench: Bench, name: str) -> None:
    with pytest.raises(errors.InvalidReference, match="pins a digest"):
        bench.build(FROM, names=("first", name))
    with pytest.raises(errors.NotFound):
        bench.store.resolve("first")


# What is written down


def test_the_history_tells_every_instruction(bench: Bench) -> None:
    image = bench.build(f"{FROM}ENV A=b\nRUN touch /x\nCMD true\n", names=("web:1",))
    document = bench.config(image)
    assert [entry["created_by"] for entry in document["history"]] == ["base", "ENV A=b", "RUN touch /x", "CMD true"]
    assert [entry.get("empty_layer", False) for entry in document["history"]] == [False, True, False, True]
    assert len(document["rootfs"]["diff_ids"]) == 2
    assert image.names == ("docker.io/library/web:1",)


def test_an_entrypoint_drops_the_command_of_the_base_and_no_other(bench: Bench) -> None:
    dropped = bench.config(bench.build(f'{FROM}ENTRYPOINT ["x"]\n'))["config"]
    kept = bench.config(bench.build(f'{FROM}CMD ["a"]\nENTRYPOINT ["x"]\n'))["config"]
    assert "Cmd" not in dropped
    assert (kept["Entrypoint"], kept["Cmd"]) == (["x"], ["a"])


def test_triggers_of_a_base_are_carried_out_once(bench: Bench) -> None:
    bench.build(f"{FROM}ONBUILD COPY f /f\nONBUILD RUN cp /f /g\n", names=("localhost/trigger",))
    image = bench.build("FROM localhost/trigger\nRUN cat /g > /h\n", {"f": "of the child"}, names=("localhost/child",))
    assert bench.read(image, "/h") == "of the child"
    assert "OnBuild" not in bench.config(image)["config"]
    bench.build("FROM localhost/child\nRUN true\n")
    assert bench.last.made == ["RUN true"]


def test_triggers_are_read_as_they_were_written(bench: Bench) -> None:
    """With the escape character of their own Dockerfile; those of an image with a backslash, as Docker reads them."""
    written = "# escape=`\nFROM localhost/base AS base\nONBUILD ENV A=`$x B=\\n\n"
    own = bench.config(bench.build(f"{written}FROM base\n"))
    assert {"A=$x", "B=\\n"} <= set(own["config"]["Env"])
    bench.build(f"{FROM}ONBUILD ENV A=\\$x B=`n\n", names=("localhost/trigger",))
    theirs = bench.config(bench.build("# escape=`\nFROM localhost/trigger\n"))
    assert {"A=$x", "B=`n"} <= set(theirs["config"]["Env"])


def test_triggers_take_no_numbers_of_other_steps(bench: Bench) -> None:
    """How many a base image has is known once other stages have begun to count theirs."""
    bench.build(f"{FROM}ONBUILD RUN echo 1\nONBUILD RUN echo 2\n", names=("localhost/trigger",))
    text = "FROM localhost/trigger AS a\nRUN echo a\nFROM localhost/trigger AS b\nRUN echo b\n"
    bench.build(f"{text}FROM scratch AS c\nCOPY --from=a / /\nCOPY --from=b / /\n")
    assert sorted(bench.last.labels) == [
        "a 1+1/7", "a 1+2/7", "a 1/7", "a 2/7", "b 3+1/7", "b 3+2/7", "b 3/7", "b 4/7", "c 5/7", "c 6/7", "c 7/7",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["assets", "1"])
def test_a_trigger_that_waits_for_a_later_stage_is_refused(bench: Bench, name: str) -> None:
    """The later stage continues the one with the trigger: each would wait for the other for good."""
    bench.build(f"{FROM}ONBUILD COPY --from={name} /a /a\n", names=("localhost/trigger",))
    text = "FROM localhost/trigger AS app\nFROM app AS assets\nRUN touch /a\nFROM assets\n"
    with pytest.raises(errors.InvalidDockerfile, match=r"localhost/trigger.*: COPY: .* stage 1, which is not built be"):
        bench.build(text)
    first = "FROM localhost/base AS early\nRUN touch /a\n"
    bench.build(f"{FROM}ONBUILD COPY --from=early /a /a\n", names=("localhost/trigger",))
    assert "a" in bench.tree(bench.build(f"{first}FROM localhost/trigger\nCOPY --from=early /a /b\n"))


def test_skopeo_and_umoci_read_what_is_built(bench: Bench, tmp_path: Path) -> None:
    """The image as a whole, by the eyes of others."""
    image = bench.build(f"{FROM}RUN rm /etc/group && echo hi > /hi\nHEALTHCHECK CMD true\n", names=("web:1",))
    path = tmp_path / "web.tar"
    with path.open("wb") as file:
        export.export_archive(bench.store, image, file, "oci")
    layout = tmp_path / "layout"
    for command in (
        ["skopeo", "copy", "--insecure-policy", f"oci-archive:{path}", f"oci:{layout}:web"],
        ["umoci", "unpack", "--image", f"{layout}:web", str(tmp_path / "bundle")],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "bundle/rootfs/hi").read_text() == "hi\n"
    assert not (tmp_path / "bundle/rootfs/etc/group").exists()
    assert (tmp_path / "bundle/rootfs/etc/passwd").exists()


# Where things come from


def test_a_base_that_is_not_here_is_pulled(bench: Bench) -> None:
    asked = []

    def pull(name: str, platform: Platform) -> None:
        asked.append((name, str(platform)))
        bench.store.tag("registry.example/base:1", bench.store.resolve(building.BASE).digest)

    folder = bench.context({"Dockerfile": "FROM registry.example/base:1\nRUN true\n"})
    with context.folder(folder) as found:
        builder.build(bench.store, found, workshop.Options(), area=bench.area, pull=pull)
        builder.build(bench.store, found, workshop.Options(), area=bench.area, pull=pull)
    assert asked == [("registry.example/base:1", str(workshop.Options().platform))]


def test_a_base_that_nobody_has_is_told_with_its_place(bench: Bench) -> None:
    with pytest.raises(errors.NotFound, match=r"Dockerfile:1: FROM: image nowhere is not in "):
        bench.build("FROM nowhere\n")


def test_a_context_may_be_a_tar(bench: Bench) -> None:
    """Compressed or not, or only a Dockerfile."""
    for mode in ("w", "w:gz", "w:xz"):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode=mode) as file:  # type: ignore[call-overload]
            for name, content in (
                ("sub/f", b"found"),
                ("x.log", b""),
                (".dockerignore", b"*.log"),
                ("D", b"FROM scratch\nCOPY . /\n"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        with context.archive(io.BytesIO(sink.getvalue()), bench.store, dockerfile="D") as found:
            image = builder.build(bench.store, found, workshop.Options(), area=bench.area)
        assert bench.tree(image).keys() == {"", ".dockerignore", "D", "sub", "sub/f"}
    with context.archive(io.BytesIO(b"FROM localhost/base\nCMD x\n"), bench.store) as found:
        builder.build(bench.store, found, workshop.Options(), area=bench.area, names=("alone",))
    assert bench.store.resolve("alone").config.cmd == ("/bin/sh", "-c", "x")
    assert not list(bench.store.tmp.iterdir())


# The same again


def test_equal_files_give_equal_images_anywhere(bench: Bench, tmp_path: Path) -> None:
    """In another store, at another time, from files with other times, with SOURCE_DATE_EPOCH."""
    text = f"{FROM}WORKDIR /w\nCOPY . .\nRUN mkdir -p d/e && cp f d/e/g && ln d/e/g d/h && rm /etc/group\nLABEL a=b\n"
    other = building.Bench(tmp_path / "other")
    other.add_base()
    first = bench.build(text, {"f": "x", "s/t": "y"}, build_args=EPOCH)
    second = other.build(text, {"s/t": "y", "f": "x"}, build_args=EPOCH)
    again = bench.build(text, {"f": "x", "s/t": "y"}, build_args=EPOCH, use_cache=False)
    assert first.digest == second.digest == again.digest
    assert bench.config(first)["created"] == "2020-09-13T12:26:40Z"


def test_a_step_that_changes_nothing_leaves_nothing(bench: Bench) -> None:
    """Not even the places that mounts need: the layer holds no name but its root's."""
    image = bench.build(f"{FROM}RUN --mount=type=tmpfs,target=/some/where/deep true\n")
    with bench.store.open(image.layers[-1].digest) as file, tarfile.open(fileobj=file) as layer:
        assert layer.getnames() == ["."]
    assert bench.build("FROM scratch\nLABEL a=b\n").layers == ()


@pytest.mark.parametrize("change", ["chown app:29 {}", "chmod 700 {}", "chmod 1777 {}"])
def test_a_place_for_a_mount_stays_when_the_command_did_something_to_it(bench: Bench, change: str) -> None:
    image = bench.build(f"{FROM}RUN --mount=type=tmpfs,target=/new/inner/m {change.format('/new/inner')}\n")
    assert {"new", "new/inner"} <= bench.tree(image).keys()
    assert "new/inner/m" not in bench.tree(image)


def test_places_for_mounts_go_again_below_folders_that_hand_down_their_group(bench: Bench) -> None:
    image = bench.build(
        f"{FROM}RUN mkdir /g && chgrp 29 /g && chmod 2775 /g\nRUN --mount=type=tmpfs,target=/g/m true\n"
    )
    assert "g/m" not in bench.tree(image)


def test_owners_in_a_layer_are_those_that_the_command_saw(bench: Bench) -> None:
    image = bench.build(
        f"{FROM}RUN touch /r && mkdir /home/app/d && chown app:29 /home/app/d && touch /t && chown 65535:12 /t\n"
    )
    tree = bench.tree(image)
    owners = {path: (tree[path].uid, tree[path].gid) for path in ("r", "home/app/d", "t")}
    assert owners == {"r": (0, 0), "home/app/d": (1000, 29), "t": (65535, 12)}


def test_a_built_layer_has_its_size_noted(bench: Bench) -> None:
    """Else every look at the store would count its files."""
    layer = bench.build(f"{FROM}RUN echo x > /x\n", names=("web",)).layers[-1]
    (stored,) = (each for each in bench.store.stored() if "docker.io/library/web:latest" in each.names)
    sizes = [size for part, size in stored.parts.items() if part.startswith("unpacked ")]
    assert layer.size_bytes in sizes


def test_a_failed_command_tells_place_code_and_last_words(bench: Bench) -> None:
    with pytest.raises(errors.BuildFailed) as failed:
        bench.build(f"{FROM}\nRUN echo first && \\\n  echo second >&2; exit 42\n", names=("out",))
    assert str(failed.value) == "Dockerfile:3: RUN: ended with exit code 42:\n  first\n  second"
    assert b"first\nsecond\n" in bench.last.output


def test_a_command_has_the_environment_of_its_stage(bench: Bench) -> None:
    text = (
        f"{FROM}ARG A=arg\nENV E=env\nUSER app\nWORKDIR /home/app/d\nRUN env | sort > ~/env; id -u > who; pwd >> who\n"
    )
    image = bench.build(text, build_args={"http_proxy": "http://proxy"})
    found = dict(line.split("=", 1) for line in bench.read(image, "/home/app/env").splitlines())
    assert found | {"SHLVL": ""} == {
        "A": "arg", "E": "env", "HOME": "/home/app", "PATH": "/bin", "PWD": "/home/app/d", "SHLVL": "",
        "http_proxy": "http://proxy",
    }  # fmt: skip
    assert bench.read(image, "/home/app/d/who") == "1000\n/home/app/d\n"
    assert "proxy" not in json.dumps(bench.config(image))


def test_the_network_is_the_machines_or_none(bench: Bench) -> None:
    image = bench.build(f"{FROM}RUN cat /proc/net/dev > /all\nRUN --network=none cat /proc/net/dev > /none\n")
    names = {
        path: {line.split(":")[0].strip() for line in bench.read(image, path).splitlines()[2:]}
        for path in ("/all", "/none")
    }
    assert names["/none"] == {"lo"}
    here = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert names["/all"] == {line.split(":")[0].strip() for line in here}
    bench.build(f"{FROM}RUN test $(tail -n +3 /proc/net/dev | wc -l) = 1\n", network="none")


def test_the_first_failure_ends_all_other_stages(bench: Bench) -> None:
    """And it alone is told."""
    text = "FROM localhost/base AS slow\nRUN sleep 600\nFROM localhost/base AS bad\nRUN exit 9\n"
    with pytest.raises(errors.BuildFailed, match=r"^Dockerfile:4: RUN: ended with exit code 9$"):
        bench.build(f"{text}FROM scratch\nCOPY --from=slow / /\nCOPY --from=bad / /\n")
    assert not list(bench.area.iterdir())


def test_without_user_namespaces_commands_have_the_machines_ids(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the file system or the kernel has none; what the files look like is the same."""
    monkeypatch.setitem(containers.Containers.__init__.__kwdefaults__, "first_id", 2**32 - 2)
    text = (
        f"{FROM}RUN cat /proc/self/uid_map > /m && touch /f && chown app:29 /f && mknod /n c 1 3\n"
        "RUN cat /proc/self/status > /host\nRUN --network=none cat /proc/self/status > /none\n"
        "RUN --mount=type=cache,target=/c,uid=1000 --mount=type=secret,id=a,uid=1000,target=/s stat -c %u /c /s > /u\n"
    )
    image = bench.build(text, secrets={"a": b"x"})
    assert bench.read(image, "/m").split() == ["0", "0", "4294967295"]
    assert bench.read(image, "/u") == "1000\n1000\n"
    rights = {path: re.search(r"CapBnd:\t(\w+)\nCapAmb", bench.read(image, path)) for path in ("/host", "/none")}
    assert {path: int(found[1], 16) for path, found in rights.items() if found} == {
        "/host": 0xA80425FB & ~(1 << 13 | 1 << 10),  # neither NET_RAW nor NET_BIND_SERVICE over this machine's network
        "/none": 0xA80425FB,
    }
    tree = bench.tree(image)
    assert (tree["f"].uid, tree["f"].gid, tree["n"].kind) == (1000, 29, "c")


@pytest.mark.parametrize("text", ["99999999999999999999", "253402300800", "-1", "1.5", "\u0661"])
def test_an_epoch_that_is_no_time_is_refused(bench: Bench, text: str) -> None:
    with pytest.raises(errors.InvalidDockerfile, match=r"^SOURCE_DATE_EPOCH=.*: expected seconds since 1970, at most"):
        bench.build(FROM, build_args={"SOURCE_DATE_EPOCH": text})


def test_what_is_written_down_is_no_younger_than_the_epoch(bench: Bench) -> None:
    """Also where the base image is: that one keeps its own lines."""
    bench.build(
        f"{FROM}RUN echo base > /base\n", names=("localhost/young",), build_args={"SOURCE_DATE_EPOCH": "2000000000"}
    )
    image = bench.build("FROM localhost/young\nENV A=b\nRUN echo x > /x\nLABEL c=d\n", build_args=EPOCH)
    document = bench.config(image)
    times = [entry["created"] for entry in document["history"]]
    assert times[1:] == ["2033-05-18T03:33:20Z", *["2020-09-13T12:26:40Z"] * 3]
    assert document["created"] == "2020-09-13T12:26:40Z"


def test_an_epoch_needs_no_argument_and_may_be_empty(bench: Bench) -> None:
    """It is set for a whole shell, and not for one Dockerfile."""
    bench.build(f"{FROM}RUN true\n", build_args={"SOURCE_DATE_EPOCH": "0"})
    bench.build(f"{FROM}RUN true\n", build_args={"SOURCE_DATE_EPOCH": ""})
    assert bench.last.warnings == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("COPY f /etc/passwd/x", r"COPY: the files: /etc/passwd: a file is there"),
        ("COPY f /etc/passwd/x/y", r"COPY: the files: /etc/passwd/x: Not a directory"),
        ("RUN ln -s l /l\nCOPY f /l/x", r"COPY: the files: /l/x: Too many levels of symbolic links"),
        ("USER nobody-there\nWORKDIR /w", r"WORKDIR: USER 'nobody-there': .*there is no user"),
        ("COPY --chown=4294967295 f /", r"COPY: --chown='4294967295': ids go up to 4294967294"),
        (f"COPY --chown=1:{'9' * 5000} f /", r"COPY: --chown='1:9*: ids go up to 4294967294"),
        ("COPY --chown=nobody-there f /", r"COPY: --chown='nobody-there': .*there is no user"),
    ],
)
def test_a_mistake_of_the_dockerfile_is_no_trouble_with_the_disk(bench: Bench, steps: str, message: str) -> None:
    with pytest.raises(errors.InvalidImage, match=rf"^Dockerfile:\d: {message}"):
        bench.build(f"{FROM}{steps}\n", {"f": ""})


def test_what_was_said_beside_an_error_is_kept(bench: Bench) -> None:
    def pull(name: str, platform: Platform) -> None:
        error = errors.NotFound(f"image {name} for {platform} is nowhere")
        error.add_note("mirror one: 404")
        raise error

    with (
        context.folder(bench.context({"Dockerfile": "FROM registry.example/none\n"})) as found,
        pytest.raises(errors.NotFound, match=r"^Dockerfile:1: FROM: image registry") as failed,
    ):
        builder.build(bench.store, found, workshop.Options(), area=bench.area, pull=pull)
    assert failed.value.__notes__ == ["mirror one: 404"]


def test_a_program_that_is_not_there_is_told(bench: Bench) -> None:
    with pytest.raises(errors.BuildFailed, match=r"^Dockerfile:2: RUN: .*/no/such"):
        bench.build(f'{FROM}RUN ["/no/such", "x"]\n')
