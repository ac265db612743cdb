"""What an agent is told: nothing of it listens or speaks in the clear."""

import pytest

from agent import imageoptions, options

OTHERS = ("--name=n1", "--address=10.0.0.2", "--state=/nowhere")


def test_without_certificates_it_listens_nowhere() -> None:
    found = options.parse(["--server=unix:/run/orch.sock", "--metrics-port=7403", *OTHERS])
    assert (found.blob_port, found.metrics_port) == (0, 0)
    found = options.parse(["--server=10.0.0.1:7400", "--trust=/nowhere", *OTHERS])
    assert (found.blob_port, found.metrics_port) == (imageoptions.BLOB_PORT, options.METRICS_PORT)


def test_without_certificates_it_calls_sockets_of_its_machine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options.parse(["--server=unix:/run/orch.sock,10.0.0.1:7400", *OTHERS])
    assert ended.value.code == 2
    assert "10.0.0.1:7400 would be spoken to in the clear; give --trust" in capsys.readouterr().err
