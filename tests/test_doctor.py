"""``unitone doctor`` reports everything, and nothing that is broken can stop it."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from unitone import doctor

ROOT = Path(__file__).resolve().parents[1]


def project() -> dict[str, object]:
    fields: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return fields


def distributions(requirements: object) -> set[str]:
    assert isinstance(requirements, list)
    return {re.split(r"[\[<>=;! ]", requirement)[0].lower() for requirement in requirements}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "surely_broken.py").write_text("raise RuntimeError('no such symbol\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "surely_broken"


def test_report_names_versions_devices_disk_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for name in ("python", "unitone", *doctor.CORE, "cpu", "cuda", "mps", *doctor.EXTRAS):
        assert re.search(rf"^ *{re.escape(name)}\b", text, re.MULTILINE), name
    assert "GB free" in text
    assert "all core modules import" in text


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert {found["module"] for found in report["core"]} == set(doctor.CORE)
    assert {extra["name"] for extra in report["extras"]} == set(doctor.EXTRAS)


def test_tables_agree_with_the_project_file() -> None:
    fields = project()
    assert set(doctor.CORE.values()) == distributions(fields["dependencies"])
    extras = fields["optional-dependencies"]
    assert isinstance(extras, dict)
    assert set(doctor.EXTRAS) == set(extras)
    for name, (modules, _) in doctor.EXTRAS.items():
        assert set(modules.values()) <= distributions(extras[name])


def test_a_core_module_that_fails_is_exit_status_1_with_its_cure(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CORE", {"json": "json", broken: broken})
    assert doctor.main([]) == 1
    text = capsys.readouterr().out
    assert "FAILS  RuntimeError: no such symbol\n" in text
    assert "cure: pip install -e '.' -c constraints.txt" in text


def test_an_extra_that_is_missing_has_a_one_line_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"ray": ({"no_such_module": "no-such"}, "a test")})
    (extra,) = doctor.examine().extras
    assert not extra.works
    assert extra.probes[0].problem == "not installed"
    assert extra.cure == "pip install -e '.[ray]' -c constraints.txt"


def test_an_installed_copy_is_cured_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitone.__file__", str(tmp_path / "unitone" / "__init__.py"))
    monkeypatch.setattr(doctor, "EXTRAS", {"ray": ({"no_such_module": "no-such"}, "a test")})
    assert doctor.examine().extras[0].cure == "pip install 'unitone[ray]'"


def test_probe_names_what_a_module_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_other.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor.probe("needs_other", "needs-other").problem == "needs no_such_module"


def test_the_gpl_speech_synthesizer_is_not_imported() -> None:
    doctor.probe("espeakng_loader", "espeakng-loader")
    assert "espeakng_loader" not in sys.modules
