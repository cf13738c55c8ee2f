"""What commands write for others to read: places that can be clicked, GitHub's annotations, SARIF,
and nothing that acts on the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.cli.output import counted
from metaprotocol.cli.reports import github, located, sarif
from metaprotocol.control_plane.rejections import Refused
from metaprotocol.control_plane.status import Change, Rejection
from metaprotocol.diagnostics import Diagnostic, Origin, Severity, printable
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as SarifLog

from tests.python.cli.test_cli import as_json, invoke
from tests.testkit.mesh import ROUTER_FILE, router_yaml, to, write

WRONG = Diagnostic(
    Severity.ERROR,
    'unknown field: 50 %,\nor "so"',
    Origin("a b/ö.yaml", 12, 5),
    "MetaRouter shop/orders",
    "spec.rout",
    fix='did you mean "routes"?',
    code="unknown-field",
)
PLACELESS = Diagnostic(Severity.WARNING, "odd")


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    folder = tmp_path / "meshes" / "mesh"
    folder.parent.mkdir()
    write(folder, 20880, {"v1": 21001}, [to("v1")])
    text = router_yaml(to("v1")).replace("routes:", "routs: []\n  routes:")
    (folder / ROUTER_FILE).write_text(text)
    return folder


@pytest.mark.parametrize(
    "given", ["meshes/mesh", "./meshes/mesh", "meshes/../meshes/mesh", "absolute"]
)
def test_places_are_named_from_the_working_directory(
    mesh: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mesh.parents[1])
    folder = str(mesh) if given == "absolute" else given
    result = invoke("validate", folder, "--no-envoy")
    assert f"error: meshes/mesh/{ROUTER_FILE}:6:3: " in result.stdout
    assert Path(f"meshes/mesh/{ROUTER_FILE}").is_file()


def test_a_second_place_in_a_message_is_named_from_the_working_directory_too(
    mesh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mesh / ROUTER_FILE).write_text(router_yaml(to("v1")))
    (mesh / "z-again.yaml").write_text(router_yaml(to("v1")))
    monkeypatch.chdir(mesh.parents[1])
    first = f"meshes/mesh/{ROUTER_FILE}:1:1"
    text = invoke("validate", "meshes/mesh", "--no-envoy").stdout
    assert f"error: meshes/mesh/z-again.yaml:1:1: MetaRouter shop/orders: is in {first} as" in text
    found = json.loads(invoke("validate", "meshes/mesh", "--no-envoy", "--json").stdout)
    found = found["diagnostics"][0]
    assert found["file"] == "meshes/mesh/z-again.yaml"
    assert found["related"] == first
    assert found["message"] == f"is in {first} as well, which is used"
    log = json.loads(invoke("validate", "meshes/mesh", "--no-envoy", "--format", "sarif").stdout)
    (result,) = log["runs"][0]["results"]
    SarifLog.model_validate(log)
    place = result["relatedLocations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == f"meshes/mesh/{ROUTER_FILE}"


def test_what_a_change_tells_names_files_from_the_working_directory(
    mesh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mesh.parents[1])
    place = Origin("routes.yaml", 3, 7)
    refused = Refused("too long", place, "MetaRouter shop/orders", "spec")
    change = Change(
        1, 0.0, (), 1, (replace(WRONG, origin=place),), (replace(WRONG, origin=place),),
        rejections=(Rejection("n", "t", "name", "v", "m", (refused,)),),
    )  # fmt: skip
    content = change.named(located(Path("meshes/mesh"))).to_dict()
    told = [*content["problems"], *content["fixed"], *content["rejections"][0]["diagnostics"]]
    assert [item["file"] for item in told] == ["meshes/mesh/routes.yaml"] * 3
    assert [(item["line"], item["column"]) for item in told] == [(3, 7)] * 3


def test_the_places_of_a_single_file_are_in_that_file(
    mesh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mesh)
    result = invoke("validate", ROUTER_FILE, "--no-envoy")
    assert f"error: {ROUTER_FILE}:6:3: " in result.stdout
    monkeypatch.chdir(mesh.parent)
    result = invoke("validate", mesh / ROUTER_FILE, "--no-envoy")
    assert f"error: mesh/{ROUTER_FILE}:6:3: " in result.stdout


def test_generate_names_the_same_places(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mesh.parent)
    assert f"error: mesh/{ROUTER_FILE}:6:3: " in invoke("generate", "mesh").stderr


# --- GitHub


def test_github_gets_a_command_for_each_problem() -> None:
    assert github([WRONG, PLACELESS]) == (
        "::error title=unknown-field,file=a b/ö.yaml,line=12,col=5::MetaRouter shop/orders: "
        'spec.rout: unknown field: 50 %25,%0Aor "so" (did you mean "routes"?)\n'
        "::warning ::odd\n"
    )


def test_no_text_ends_a_command_or_begins_another() -> None:
    nasty = Diagnostic(
        Severity.ERROR, "x\n::set-output name=a::b", Origin("a,b:c\n::error::.yaml", 1, 1)
    )
    (line,) = github([nasty]).splitlines()
    assert line.startswith("::error file=a%2Cb%3Ac%0A%3A%3Aerror%3A%3A.yaml,line=1,col=1::")


def test_validate_annotates_for_github(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mesh.parents[1])
    result = invoke("validate", "meshes/mesh", "--no-envoy", "--format", "github")
    assert result.exit_code == 1
    place = f"file=meshes/mesh/{ROUTER_FILE},line=6,col=3"
    assert f"::error title=unknown-field,{place}::MetaRouter" in result.stdout


# --- SARIF


def test_sarif_is_as_its_schema_says() -> None:
    log = sarif([WRONG, PLACELESS, WRONG], "1.2.3")
    SarifLog.model_validate_json(json.dumps(log))
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["problem", "unknown-field"]
    first = run["results"][0]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("unknown-field", 1, "error")
    (place,) = first["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b/%C3%B6.yaml"},
        "region": {"startLine": 12, "startColumn": 5},
    }
    assert "locations" not in run["results"][1]


@pytest.mark.parametrize("break_it", ["level", "startLine", "unknown"])
def test_the_check_of_sarif_finds_what_is_wrong(break_it: str) -> None:
    log: Any = sarif([WRONG], "1.2.3")
    result = log["runs"][0]["results"][0]
    if break_it == "level":
        result["level"] = "fatal"
    elif break_it == "unknown":
        result["unknown"] = 1
    else:
        result["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    with pytest.raises(ValueError, match="validation error"):
        SarifLog.model_validate_json(json.dumps(log))


def test_validate_writes_sarif_with_and_without_problems(mesh: Path) -> None:
    result = invoke("validate", mesh, "--no-envoy", "--format", "sarif")
    assert result.exit_code == 1
    log = SarifLog.model_validate_json(result.stdout)
    assert log.runs[0].results
    (mesh / ROUTER_FILE).write_text(router_yaml(to("v1")))
    result = invoke("validate", mesh, "--no-envoy", "--format", "sarif")
    assert result.exit_code == 0
    assert SarifLog.model_validate_json(result.stdout).runs[0].results == []


# --- a check by Envoy, and a folder without anything


@pytest.mark.parametrize("envoy", ["/nowhere/envoy", "/etc/passwd", "/"])
def test_a_check_by_an_envoy_that_is_not_there_is_a_failure_if_it_was_asked_for(
    mesh: Path, envoy: str
) -> None:
    result = invoke("validate", mesh, "--with-envoy", env={"ENVOY": envoy})
    assert result.exit_code == 3
    assert envoy in result.output
    failure = as_json("validate", mesh, "--envoy", envoy, code=3)
    assert failure["event"] == "failure"


def test_a_module_that_is_not_there_is_like_an_envoy_that_is_not(mesh: Path) -> None:
    (mesh / ROUTER_FILE).write_text(router_yaml(to("v1")))
    nowhere = {"METAPROTOCOL_MODULE": "/nowhere/libmetaprotocol.so"}
    assert invoke("validate", mesh, "--with-envoy", env=nowhere).exit_code == 3
    result = invoke("validate", mesh, env=nowhere)
    assert result.exit_code == 0
    assert "Not checked by a real Envoy" in result.stdout


@pytest.mark.parametrize("content", [{}, {"README.md": "# x"}, {"a.yaml": "# nothing\n"}])
def test_a_folder_without_resources_is_a_warning(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    report = as_json("validate", tmp_path, "--no-envoy")
    assert [item["code"] for item in report["diagnostics"]] == ["no-resources"]
    assert report["diagnostics"][0]["severity"] == "warning"
    assert invoke("validate", tmp_path, "--no-envoy", "--strict").exit_code == 1


# --- what acts on a terminal

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\u202etxt\u2028end\x00\x7f\ud800"


def test_nothing_that_acts_on_a_terminal_is_left() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert "\\x1b[2J" in shown
    assert printable("tab\tand\nline ö 漢 🎉") == "tab\tand\nline ö 漢 🎉"
    assert printable("tab\tand\nline", one_line=True) == "tab\\tand\\nline"


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
def test_values_from_files_do_not_act_on_the_terminal(tmp_path: Path, form: str) -> None:
    value = '"\\e[2J\\x9b31m\\u202e"'
    text = (
        router_yaml(to("v1"))
        .replace("hosts: [", f"hosts: [{value}, ")
        .replace("spec:", "spcc: 1\nspec:")
    )
    (tmp_path / f"{ROUTER_FILE}").write_text(text)
    result = invoke("validate", tmp_path, "--no-envoy", "--format", form)
    assert result.exit_code == 1
    assert "2J" in result.stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(result.stdout)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_are_no_text_are_shown_as_escapes(tmp_path: Path, encoding: str) -> None:
    odd = tmp_path / os.fsdecode(b"me\xffsh-\xc3\xb6")
    odd.mkdir()
    finished = subprocess.run(
        [sys.executable, "-m", "metaprotocol", "validate", "--no-envoy", odd],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    assert b"\\udcff" in finished.stdout


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "Envoy", "0 Envoys"), (1, "Envoy", "1 Envoy"), (2, "Envoy", "2 Envoys"),
     (1200, "error", "1,200 errors")],
)  # fmt: skip
def test_nouns_are_counted(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
