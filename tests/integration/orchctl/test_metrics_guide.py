"""docs/metrics.md does what it says: a real Prometheus logs in, reads, and takes the rules."""

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import etcd, metricstable, orchctl, scraping
from tests.support.founded import Founded, running
from tests.support.waiting import until

pytestmark = pytest.mark.etcd
WRITTEN_FOLDER = "/var/lib/prometheus/orch/trust/watched"


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Founded]:
    with running(tmp_path_factory.mktemp("founded")) as made:
        yield made


@contextlib.contextmanager
def prometheus(folder: Path, config: str) -> Iterator[int]:
    """A real one on a free port, with everything that it writes in the folder."""
    (folder / "prometheus.yml").write_text(config)
    port = etcd.free_port()
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def asked(port: int, query: str) -> list[dict[str, object]]:
    """The result of a query; empty while there is none."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])
    return []


def test_prometheus_reads_a_control_plane_with_the_guide_s_configuration(founded: Founded, tmp_path: Path) -> None:
    """As a viewer who has logged in; put out, it reads nothing more, and says why."""
    somebody = founded.somebody("prometheus")
    (tmp_path / "token").write_text(founded.token("--role=viewer", "--person=prometheus", "--uses=1"))
    login = orchctl.run(
        somebody, "login", f"--token=@{tmp_path / 'token'}", f"--door={founded.control.door}", "--context=watched"
    )
    assert login.code == 0, login.err
    own = founded.folder / "prometheus" / "trust" / "watched"
    written = metricstable.blocks()[0]
    config = written.replace(WRITTEN_FOLDER, str(own)).replace("10.0.0.1:7404", founded.control.metrics)
    assert config.count(str(own)) == 3
    with prometheus(tmp_path, f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{config}") as port:
        until(lambda: bool(asked(port, 'up{job="orch-controlplane"} == 1')), what="it is read", timeout_s=30)
        assert asked(port, "orch_leader == 1")
        assert asked(port, "orch_etcd_up == 1")
        until(lambda: bool(asked(port, 'up{job="orch-node"} == 0')), what="nobody is a node", timeout_s=30)
        assert founded.run("cluster", "member", "revoke", "person:prometheus").code == 0
        until(lambda: bool(asked(port, 'up{job="orch-controlplane"} == 0')), what="it is refused", timeout_s=30)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        assert any("403 Forbidden" in target["lastError"] for target in targets)


def test_the_guide_s_configuration_and_rules_are_what_promtool_wants(tmp_path: Path) -> None:
    """And every metric in the rules is one that there is."""
    config, rules = metricstable.blocks()
    (tmp_path / "rules.yml").write_text(rules)
    checked = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    known = metricstable.names(metricstable.control_plane()) | metricstable.names(metricstable.node())
    used = {word.removesuffix("_bucket") for word in scraping.ours(rules)}
    assert used <= known
    (tmp_path / "prometheus.yml").write_text(config)
    syntax = ["promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml"]
    checked = subprocess.run(syntax, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
