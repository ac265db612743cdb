"""Documents from strangers: bounded, unambiguous, and every complaint names its field."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import digest as digests
from images import documents, errors, image, manifest
from tests.unit.images import makers

DIGEST = "sha256:" + "b" * 64
AMD64 = manifest.Platform(architecture="amd64")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper"),
        (b"[" * 2_000_000, "nested deeper"),
        (b'{"a": "' + b"x" * (4 << 20) + b'"}', "larger than 4 MiB"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_json_that_harms_or_has_two_meanings_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(errors.InvalidImage) as caught:
        documents.parse(data, what="manifest x")
    assert str(caught.value).startswith("manifest x: ")
    assert complaint in str(caught.value)


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    text = "[" * 100 + '\\"{'
    assert documents.parse(documents.dump({"a": text}), what="x").text("a") == text


def test_a_string_that_never_ends_costs_one_pass() -> None:
    started = time.process_time()
    with pytest.raises(errors.InvalidImage):
        documents.parse(b'"' + b'\\"' * (2 << 20), what="x")
    assert time.process_time() - started < 5


def _manifest(**changes: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "config": {"mediaType": manifest.OCI_CONFIG, "digest": DIGEST, "size": 2},
        "layers": [{"mediaType": manifest.OCI_LAYER, "digest": DIGEST, "size": 3}],
    }
    return documents.dump({key: entry for key, entry in {**value, **changes}.items() if entry is not None})


def _layer(**changes: Any) -> list[dict[str, Any]]:
    return [{"mediaType": manifest.OCI_LAYER, "digest": DIGEST, "size": 3, **changes}]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schemaVersion": 1}, "schemaVersion: only version 2"),
        ({"schemaVersion": None}, "schemaVersion: only version 2"),
        ({"manifests": []}, "manifests: the document is both"),
        ({"mediaType": manifest.OCI_INDEX}, "mediaType: "),
        ({"mediaType": "text/plain"}, "mediaType: 'text/plain' does not fit"),
        ({"mediaType": 7}, "mediaType: expected text, found 7"),
        ({"config": None}, "config.mediaType: missing"),
        ({"config": []}, "config: expected an object"),
        ({"config": {"mediaType": manifest.OCI_LAYER, "digest": DIGEST, "size": 1}}, "config.mediaType: "),
        ({"layers": {}}, "layers: expected a list"),
        ({"layers": [1]}, "layers[0]: expected an object"),
        ({"layers": _layer(digest="sha256:../../etc")}, "layers[0].digest: "),
        ({"layers": _layer(digest="md5:" + "a" * 32)}, "layers[0].digest: "),
        ({"layers": _layer(size=-1)}, "layers[0].size: "),
        ({"layers": _layer(size=True)}, "layers[0].size: "),
        ({"layers": _layer(size=1.5)}, "layers[0].size: "),
        ({"layers": _layer(size=1 << 63)}, "layers[0].size: "),
        ({"layers": _layer(mediaType=manifest.OCI_CONFIG)}, "layers[0].mediaType: "),
        ({"layers": _layer(urls=["http://169.254.169.254/"])}, "layers[0].urls: "),
        ({"layers": _layer() * 501}, "layers: 501 layers; the bound is 500"),
    ],
)
def test_a_bad_manifest_names_the_field(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(errors.InvalidImage) as caught:
        manifest.parse(_manifest(**changes), what="manifest m")
    assert f"manifest m: {complaint}" in str(caught.value)


def test_a_manifest_must_be_what_it_was_announced_as() -> None:
    with pytest.raises(errors.InvalidImage, match="announced as"):
        manifest.parse(_manifest(), what="m", media_type=manifest.DOCKER_MANIFEST)


def test_a_manifest_without_a_media_type_is_known_by_its_content() -> None:
    parsed = manifest.parse(_manifest(mediaType=None), what="m")
    assert isinstance(parsed, manifest.Manifest)
    assert parsed.media_type == manifest.OCI_MANIFEST


def test_a_written_manifest_reads_back_equal() -> None:
    parsed = manifest.parse_manifest(_manifest(), what="m")
    assert manifest.parse_manifest(parsed.as_bytes(), what="m") == parsed


def _index(*platforms: dict[str, str] | None) -> manifest.Index:
    entries = [
        {"mediaType": manifest.OCI_MANIFEST, "digest": digests.of_bytes(bytes([number])), "size": 1}
        | ({"platform": platform} if platform else {})
        for number, platform in enumerate(platforms)
    ]
    parsed = manifest.parse(makers.index_document(*entries), what="i")
    assert isinstance(parsed, manifest.Index)
    return parsed


@pytest.mark.parametrize(
    ("wanted", "platforms", "chosen"),
    [
        (AMD64, [{"architecture": "arm64"}, {"architecture": "amd64"}], 1),
        (AMD64, [{"architecture": "amd64", "os": "windows"}, {"architecture": "amd64"}], 1),
        (AMD64, [{"architecture": "unknown", "os": "unknown"}, {"architecture": "amd64"}], 1),
        (AMD64, [{"architecture": "amd64"}, {"architecture": "amd64"}], 0),
        (AMD64, [{"architecture": "amd64", "variant": "v3"}, {"architecture": "amd64"}], 1),
        (AMD64, [None], 0),
        (
            manifest.Platform(architecture="arm", variant="v7"),
            [
                {"architecture": "arm", "variant": "v6"},
                {"architecture": "arm"},
                {"architecture": "arm", "variant": "v7"},
            ],
            2,
        ),
    ],
)
def test_an_index_gives_the_image_for_the_platform(
    wanted: manifest.Platform, platforms: list[dict[str, str] | None], chosen: int
) -> None:
    index = _index(*platforms)
    assert index.choose(wanted, what="i") == index.manifests[chosen]


def test_an_index_without_the_platform_says_what_it_has() -> None:
    with pytest.raises(errors.NotFound, match="no image for linux/amd64; it offers linux/arm64, linux/s390x"):
        _index({"architecture": "s390x"}, {"architecture": "arm64"}).choose(AMD64, what="index i")


def test_a_config_round_trips_through_its_canonical_bytes() -> None:
    config = image.Config(
        entrypoint=("/bin/web",),
        cmd=("-p", "80"),
        env=("A=b", "EMPTY="),
        working_dir="/srv",
        user="1000:1000",
        exposed_ports=("53/udp", "80/tcp"),
        volumes=("/data",),
        labels={"team": "a"},
        stop_signal="SIGTERM",
        created="2024-05-06T07:08:09Z",
    )
    history = (
        image.Step(created="2024-05-06T07:08:09Z", created_by="COPY . /srv", author="a", comment="built"),
        image.Step(created_by="CMD -p 80", is_empty=True),
    )
    document = image.ConfigDocument(platform=AMD64, diff_ids=(DIGEST,), config=config, history=history)
    assert image.parse_config(document.as_bytes(), what="c") == document
    assert document.as_bytes() == image.parse_config(document.as_bytes(), what="c").as_bytes()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"Cmd": "sh"}, "config.Cmd: expected a list"),
        ({"Cmd": [1]}, "config.Cmd[0]: expected text"),
        ({"Env": ["=x"]}, "config.Env[0]: "),
        ({"Env": ["A=\0"]}, "config.Env[0]: "),
        ({"ExposedPorts": {"0/tcp": {}}}, "config.ExposedPorts.0/tcp: "),
        ({"ExposedPorts": {"65536": {}}}, "config.ExposedPorts.65536: "),
        ({"Labels": {"a": 1}}, "config.Labels.a: expected text"),
        ({"WorkingDir": 1}, "config.WorkingDir: expected text"),
    ],
)
def test_a_bad_config_names_the_field(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(errors.InvalidImage) as caught:
        image.parse_config(makers.config_document(**config), what="config c")
    assert f"config c: {complaint}" in str(caught.value)


def test_null_fields_count_as_absent() -> None:
    """Docker writes `"Cmd": null`."""
    parsed = image.parse_config(makers.config_document(Cmd=None, Env=None, Labels=None), what="c")
    assert parsed.config == image.Config()


def test_chain_ids_follow_the_specification() -> None:
    first, second = digests.of_bytes(b"1"), digests.of_bytes(b"2")
    assert digests.chain_ids((first, second)) == (first, digests.of_bytes(f"{first} {second}".encode()))
    assert digests.chain_ids(()) == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["config", "layers", "manifests", "mediaType", "digest", "size"]), inner)
    ),
    max_leaves=12,
)


@given(_JSON, st.sampled_from([None, manifest.OCI_MANIFEST, manifest.OCI_INDEX, manifest.DOCKER_MANIFEST]))
def test_any_json_is_an_image_or_an_image_error(value: Any, media_type: str | None) -> None:
    data = json.dumps(
        {"schemaVersion": 2, "mediaType": media_type} | (value if isinstance(value, dict) else {"x": value})
    )
    try:
        manifest.parse(data.encode(), what="m")
    except errors.ImageError as error:
        complaint = str(error)
    else:
        complaint = "m is fine"
    assert complaint.startswith("m")


@pytest.mark.parametrize(
    ("history", "complaint"),
    [
        ("CMD", "history: expected a list"),
        (["CMD"], "history[0]: expected an object"),
        ([{"created_by": 1}], "history[0].created_by: expected text"),
        ([{}, {"empty_layer": "yes"}], "history[1].empty_layer: expected true or false"),
    ],
)
def test_a_bad_history_names_the_field(history: object, complaint: str) -> None:
    value = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "history": history}
    with pytest.raises(errors.InvalidImage) as caught:
        image.parse_config(documents.dump(value), what="config c")
    assert f"config c: {complaint}" in str(caught.value)
