"""What is shipped: the module is one self-contained file that shows Envoy its hooks and nothing
else, and the wheel carries everything the package loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import generate_cli_files
import licences
import pytest
from fetch_sources import SOURCES
from metaprotocol.envoy import find_envoy

from tests.testkit.built import built
from tests.testkit.independent import buildifier

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
MODULE = ROOT / "python" / "metaprotocol" / "_native" / "libmetaprotocol.so"

HOOK = "envoy_dynamic_module_on_"
STATIC_HOOK = f"metaprotocol_{HOOK}"
CALLBACK = "envoy_dynamic_module_callback_"

# Parts of the C library; everything else has to be inside the module.
SYSTEM_LIBRARIES = {
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}

# Without one of these Envoy refuses the filter, the bridge or the load balancing policy.
REQUIRED_HOOKS = {
    "program_init",
    *(
        f"network_filter_{name}"
        for name in (
            *("config_new", "config_destroy", "new", "destroy"),
            *("new_connection", "read", "write", "event"),
        )
    ),
    *(
        f"upstream_http_tcp_bridge_{name}"
        for name in (
            *("config_new", "config_destroy", "new", "destroy"),
            *("encode_headers", "encode_data", "encode_trailers", "on_upstream_data"),
        )
    ),
    *(
        f"lb_{name}"
        for name in (
            *("config_new", "config_destroy", "new", "destroy"),
            *("choose_host", "on_host_membership_update"),
        )
    ),
}

DEMO = {"demo", "peers"}
"""Packages that are in the wheel metaprotocol-demo and not in production's."""

SHIPPED = {
    *("api", "bazel", "build", "cmake", "codecs", "deploy", "docs", "envoy_ext", "examples"),
    *("include", "python", "share", "src", "tools"),
    *(".bazelignore", ".bazelrc", ".clang-format", ".clang-tidy", ".dockerignore", ".gitignore"),
    *("BUILD.bazel", "MODULE.bazel", "WORKSPACE", "CMakeLists.txt", "CMakePresets.json"),
    *("CHANGELOG.md", "LICENCES.md", "LICENSE", "Makefile", "NOTICE", "PKG-INFO", "README.md"),
    "pyproject.toml",
}
"""What the source distribution has at its top."""

needs_build = pytest.mark.skipif(
    not MODULE.is_file(), reason="the module is not built: make native"
)


def _version() -> str:
    header = (ROOT / "envoy_ext" / "abi" / "version.h").read_text()
    found = re.search(r'kModuleVersion\[\] = "(.+)"', header)
    assert found is not None
    return found[1]


def _dynamic_symbols(library: Path, which: str) -> set[str]:
    output = subprocess.run(
        ["nm", "--dynamic", which, "--format=posix", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # A version may follow the name: "memcpy@GLIBC_2.14".
    return {re.split(r"[ @]", line, maxsplit=1)[0] for line in output.splitlines()}


@pytest.fixture(scope="module")
def static_module() -> Path:
    """The module as it is linked into a custom Envoy, by itself."""
    return built("metaprotocol_static") / "libmetaprotocol_static.so"


@needs_build
def test_the_module_needs_nothing_but_the_c_library(static_module: Path) -> None:
    for library in (MODULE, static_module):
        output = subprocess.run(
            ["readelf", "--dynamic", "--wide", library], capture_output=True, text=True, check=True
        ).stdout
        needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", output))
        assert needed <= SYSTEM_LIBRARIES, library.name


@needs_build
def test_what_is_shipped_does_not_tell_where_it_was_built() -> None:
    shipped = [MODULE, *MODULE.parent.glob("_engine*.so")]
    assert len(shipped) == 2
    for library in shipped:
        assert str(ROOT).encode() not in library.read_bytes(), library.name


@needs_build
def test_the_module_shows_its_hooks_and_nothing_else() -> None:
    shown = _dynamic_symbols(MODULE, "--defined-only")
    assert {name for name in shown if not name.startswith(HOOK)} == set()
    assert {name.removeprefix(HOOK) for name in shown} >= REQUIRED_HOOKS


@needs_build
def test_the_python_bindings_show_what_python_looks_up_and_nothing_else() -> None:
    (bindings,) = MODULE.parent.glob("_engine.*.so")
    assert _dynamic_symbols(bindings, "--defined-only") == {"PyInit__engine"}


@needs_build
def test_the_static_module_has_the_same_hooks_under_its_own_name(static_module: Path) -> None:
    shown = _dynamic_symbols(static_module, "--defined-only")
    assert {name for name in shown if not name.startswith(STATIC_HOOK)} == set()
    hooks = {name.removeprefix(HOOK) for name in _dynamic_symbols(MODULE, "--defined-only")}
    assert {name.removeprefix(STATIC_HOOK) for name in shown} == hooks


@needs_build
def test_every_callback_the_module_uses_is_one_of_this_envoys() -> None:
    used = _dynamic_symbols(MODULE, "--undefined-only")
    callbacks = {name for name in used if name.startswith(CALLBACK)}
    assert callbacks
    offered = _dynamic_symbols(find_envoy().path, "--defined-only")
    # They are weak, so that a misspelt one would be null and go unnoticed.
    assert callbacks - offered == set()


@needs_build
def test_the_module_stays_loadable_where_a_callback_is_missing() -> None:
    output = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", "--format=posix", MODULE],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    strong = [
        name
        for name, kind in (line.split()[:2] for line in output.splitlines())
        if name.startswith(CALLBACK) and kind != "w"
    ]
    assert strong == []


@needs_build
def test_the_wheel_carries_what_the_package_loads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert "metaprotocol/_native/libmetaprotocol.so" in names
    for text in ("LICENCES.md", "LICENSE", "NOTICE"):
        assert any(re.fullmatch(rf"metaprotocol-.+\.dist-info/.*{text}", name) for name in names)
    if any((ROOT / "src" / "bindings").glob("*.cc")):
        assert f"metaprotocol/_native/_engine{suffix}" in names
    for proto in (ROOT / "api").rglob("*.proto"):
        relative = proto.relative_to(ROOT / "api")
        assert f"metaprotocol/api/{relative}" in names
        assert str(relative.with_name(f"{proto.stem}_pb2.py")) in names
    for path in (ROOT / "include").rglob("*.*"):
        assert f"metaprotocol/include/{path.relative_to(ROOT / 'include')}" in names
    # What the codecs' fuzz targets are made of.
    for folder in ("src/codec", "codecs/external"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".cc", ".h"):
                assert f"metaprotocol/include/fuzzing/{path.relative_to(ROOT)}" in names
    for path in (ROOT / "python" / "metaprotocol" / "scaffold").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT / "python")) in names
    packaged = {name for name in names if name.startswith("metaprotocol/") and "_pb2" not in name}
    for path in (ROOT / "python" / "metaprotocol").rglob("*.py"):
        relative = path.relative_to(ROOT / "python")
        if "_pb2" not in path.name:
            assert (str(relative) in packaged) == (relative.parts[1] not in DEMO), relative
    data = f"metaprotocol-{_version()}.data/data"
    for path in (ROOT / "share").rglob("*"):
        assert path.is_dir() or f"{data}/{path.relative_to(ROOT)}" in names


@needs_build
def test_the_wheel_carries_nothing_of_the_build(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    allowed = re.compile(r"metaprotocol/|metaprotocol-[0-9.]+\.(dist-info|data/data/share)/")
    assert [name for name in names if not allowed.match(name)] == []
    # Headers and a source to begin with are for people who write codecs.
    for_codecs = ("metaprotocol/include/", "metaprotocol/scaffold/")
    built = [name for name in names if re.search(r"\.(a|o|cc|h|pyc)$", name)]
    assert [name for name in built if not name.startswith(for_codecs)] == []


@needs_build
def test_the_installed_package_finds_its_own_module(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "from metaprotocol.envoy.binary import find_module; print(find_module())"
    # Without `site` the editable installation of this tree is out of sight.
    environment = {name: value for name, value in os.environ.items() if name[:12] != "METAPROTOCOL"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    found = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    ).stdout.strip()
    assert Path(found) == tmp_path / "metaprotocol" / "_native" / "libmetaprotocol.so"


def test_the_version_is_said_in_one_place() -> None:
    said = []
    for name in (
        *("CMakeLists.txt", "MODULE.bazel", "pyproject.toml", "python/demo/pyproject.toml"),
        *(
            "bazel/example/MODULE.bazel",
            "envoy_ext/abi/version.h",
            "python/metaprotocol/__init__.py",
        ),
    ):
        if f'"{_version()}"' in (ROOT / name).read_text():
            said.append(name)
    assert said == ["envoy_ext/abi/version.h"]


@needs_build
def test_the_wheel_has_that_version_and_names_the_demo_as_an_extra(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"metaprotocol-{_version()}.dist-info/METADATA").decode()
    assert f"Version: {_version()}\n" in metadata
    assert 'Requires-Dist: metaprotocol-demo; extra == "demo"' in metadata
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in needed if "thrift" in line and "extra ==" not in line] == []


def test_the_demo_is_a_package_that_needs_this_version(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path,
    ]
    subprocess.run([*command, ROOT / "python" / "demo"], capture_output=True, check=True)
    (path,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(path)
    modules = {name.split("/")[1] for name in archive.namelist() if name[:13] == "metaprotocol/"}
    assert modules == DEMO
    metadata = archive.read(f"metaprotocol_demo-{_version()}.dist-info/METADATA").decode()
    assert f"Requires-Dist: metaprotocol[envoy,peers]=={_version()}\n" in metadata


def test_the_source_distribution_builds_without_fetching_anything(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        tmp_path,
    ]
    subprocess.run([*command, ROOT], capture_output=True, check=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    third_party = "build/third_party"
    for source in (SOURCES["re2"], SOURCES["nlohmann_json"], SOURCES["libyaml"]):
        assert {f"{third_party}/{source.name}/{file}" for file in source.proof} <= names
    assert {"CMakeLists.txt", "LICENCES.md", "src/engine.cc", "tools/fetch_sources.py"} <= names
    made = [name for name in names if name.startswith("build/") and third_party not in name]
    assert made == []
    assert not {name for name in names if name.endswith((".so", "_pb2.py"))}
    # What lies about in a tree by accident is not shipped.
    assert {name.partition("/")[0] for name in names} - {""} <= SHIPPED


def test_the_manual_page_and_completion_are_those_of_the_command_line() -> None:
    old = [path for path, text in generate_cli_files.files().items() if path.read_text() != text]
    assert old == [], "python tools/generate_cli_files.py makes them"


@needs_build
def test_every_file_that_is_linked_in_has_a_licence_that_is_listed() -> None:
    if not (BUILD / "libmetaprotocol.map").is_file():
        pytest.skip("the build in build/release has no linker's map")
    assert licences.problems(BUILD) == []


def test_bazel_makes_the_configuration_reader_anew_when_any_of_its_files_changes() -> None:
    text = (ROOT / "bazel" / "repositories.bzl").read_text()
    listed = re.search(r"for name in \[(.*?)\]", text, re.DOTALL)
    assert listed is not None
    files = {path.stem for path in (ROOT / "api").rglob("*.proto")}
    assert set(re.findall(r'"(\w+)"', listed[1])) == files


def test_bazel_files_are_as_bazels_own_formatter_writes_them() -> None:
    kinds = ("*.bazel", "*.bzl", "*.BUILD")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *kinds, "WORKSPACE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    files = [name for name in listed.stdout.split("\0") if name]
    if not files:
        pytest.skip("this is no clone of the repository")
    checked = subprocess.run(
        [buildifier(), "-mode=check", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
