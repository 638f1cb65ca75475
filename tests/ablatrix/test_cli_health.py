"""`ablatrix doctor`: every check is reached, and a broken part is named with exit code 3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablatrix import cluster
from ablatrix.cli import main
from ablatrix.errors import Unreachable


def doctor(capsys: pytest.CaptureFixture[str], store: Path, *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--store", str(store), *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_a_sound_machine_is_told_so_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "probe", lambda: "2.60.0")

    code, out, _ = doctor(capsys, tmp_path / "runs", "--json")

    findings = {finding["name"]: finding for finding in json.loads(out)["findings"]}
    assert code == 0
    assert {"python", "store", "data", "ray", "mlflow"} <= set(findings)
    assert findings["ray"] == {"name": "ray", "verdict": "good", "text": "2.60.0 starts a local cluster"}


def test_a_ray_that_does_not_start_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise Unreachable("Ray did not start: no sockets left.")

    monkeypatch.setattr(cluster, "probe", refuse)

    code, out, err = doctor(capsys, tmp_path / "runs")

    assert code == 3
    assert "Ray did not start: no sockets left." in " ".join(out.split())
    assert "a sweep cannot run here: ray" in err
