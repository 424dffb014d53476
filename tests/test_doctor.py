"""`datacondense doctor` says what is so, and what is broken; completion completes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

import datacondense
from datacondense.cli import main
from datacondense.cli.dispatch import VERBS

pytestmark = pytest.mark.slow


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["doctor", *words]) == 0
    return capsys.readouterr().out


def test_versions_machine_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--precision", "float32", "--device", "cpu")
    assert text.startswith(f"datacondense {datacondense.__version__}")
    assert f"torch {torch.__version__}" in text
    assert "pytest" not in text
    assert "float32 (as asked)" in text
    assert f"{torch.get_num_threads()} of PyTorch" in text
    assert "convolutions" in (chosen := said(capsys)) or "not clearly faster" in chosen


def test_caches_are_measured_and_the_command_empties_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "a cache"
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "network.safetensors").write_bytes(bytes(3 * 1024 * 1024))
    (cache / "link").symlink_to(cache / "deep" / "network.safetensors")
    monkeypatch.setenv("DATACONDENSE_CACHE", str(cache))
    (line,) = (line for line in said(capsys, "--precision", "float32").splitlines() if str(cache) in line)
    assert line.split()[:2] == ["3.0", "MiB"]
    assert "in 2 files" in line or "in 3 files" in line  # with a measurement of the machine
    subprocess.run(["sh", "-c", line[line.index("rm -r") :]], check=True)
    assert not cache.exists()


def test_where_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATACONDENSE_DATA", raising=False)
    assert "DATACONDENSE_DATA is not set" in said(capsys)
    (tmp_path / "leaves").mkdir()
    (tmp_path / "mnist.parquet").touch()
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path))
    assert f"DATACONDENSE_DATA={tmp_path}: mnist, leaves" in said(capsys)
    monkeypatch.setenv("DATACONDENSE_DATA", str(tmp_path / "nowhere"))
    assert "not a directory" in said(capsys)  # and goes on


def test_json_is_replaced_only_with_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "doctor.json"
    said(capsys, "--json", str(file))
    found = json.loads(file.read_text())
    assert found["versions"]["torch"] == torch.__version__
    assert {"machine", "packages", "data", "caches", "system"} <= set(found)
    assert main(["doctor", "--json", str(file)]) == 2
    said(capsys, "--json", str(file), "--overwrite")


def test_a_shell_completes_verbs_flags_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--completion", "bash"])
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)

    def completed(*words: str) -> set[str]:
        typed = " ".join(f"'{word}'" for word in words)
        ask = f"""source {script}
            function=$(complete -p datacondense | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            COMP_WORDS=(datacondense {typed}); COMP_CWORD={len(words)}
            $function; echo "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("") >= set(VERBS)
    assert completed("con") == {"condense", "continual"}
    assert completed("evaluate", "--tr") == {"--trials"}
    assert completed("condense", "--outer") == {"--outer-steps"}
    assert completed("condense", "--precision", "") == {"auto", "bfloat16", "float32", "float64"}


def test_an_unknown_shell_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "bsh"]) == 2
    assert "did you mean 'bash'?" in capsys.readouterr().err
    assert main(["--completion"]) == 2
