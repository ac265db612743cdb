"""`orchctl image` with images whose makers want to fool whoever looks at them."""

from pathlib import Path

from images import image, manifest
from images.store import ImageStore
from tests.support import orchctl
from tests.unit.images import makers


def test_what_an_image_says_of_itself_does_not_steer_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2Jevil\nfaked:1  row"
    root = tmp_path / "store"
    environ = {**orchctl.environment(tmp_path, "127.0.0.1:1"), "ORCH_IMAGE_STORE": str(root)}
    store = ImageStore(root)
    config = image.ConfigDocument(
        platform=manifest.Platform(os="linux", architecture=manifest.host_platform().architecture, variant=evil),
        diff_ids=(),
        config=image.Config(labels={evil: evil}, env=(f"A={evil}",), cmd=(evil,)),
        history=(image.Step(created_by=evil, comment=evil, is_empty=True),),
    ).as_bytes()
    store.put_bytes(config)
    store.tag("evil", store.put_bytes(makers.manifest_document(config)))
    for arguments in (("ls",), ("ls", "-o", "wide"), ("inspect", "evil"), ("history", "evil"), ("ls", "-o", "yaml")):
        result = orchctl.run(environ, "image", *arguments)
        assert result.code == 0, result.err
        assert "\x1b" not in result.out
        assert not any(line.lstrip().startswith("faked") for line in result.out.splitlines()), arguments
