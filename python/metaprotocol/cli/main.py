"""The command ``metaprotocol``."""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape

from metaprotocol.cli import (
    codecs,
    decode,
    doctor,
    fuzz,
    generate,
    image,
    new,
    run,
    running,
    serve,
    try_call,
    validate,
)
from metaprotocol.cli import version as version_module
from metaprotocol.cli.failures import EXIT_CODES, ExitCode, report, silence, unwritable

app = typer.Typer(
    name="metaprotocol",
    help="Any layer-7 protocol through a stock Envoy: routes in Aeraki's and Istio's own YAML, "
    "changed while calls are under way.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(
    name: str, command: Callable[..., Any], panel: str, *examples: str, to: typer.Typer = app
) -> None:
    """Registers a command. Each example is "command line   # what it does"."""
    lines = "\n\n".join(f"  {escape(example)}" for example in examples)
    epilog = f"[bold]Examples[/bold]\n\n{lines}\n\n{EXIT_CODES}"
    to.command(name, help=_unwrapped(command), epilog=epilog, rich_help_panel=panel or None)(
        command
    )


def _unwrapped(command: Callable[..., Any]) -> str:
    """The docstring with each paragraph in one line: the terminal wraps it as it fits."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


_RUNNING = "Running"
_LOOKING = "Looking at a running Envoy"
_FILES = "Files"
_MACHINE = "This machine"
_CODECS = "Codecs"

_add(
    "run",
    run.run,
    _RUNNING,
    "metaprotocol run ./mesh   # Envoy and control plane, until Ctrl-C",
    "metaprotocol run ./mesh --admin-port 9901 --concurrency 4",
    "metaprotocol run ./mesh --envoy /opt/envoy/bin/envoy",
)
_add(
    "serve",
    serve.serve,
    _RUNNING,
    "metaprotocol serve ./mesh --listen 0.0.0.0:15010 --http 127.0.0.1:8080",
    "metaprotocol serve ./mesh --tls-cert srv.pem --tls-key srv.key --tls-client-ca ca.pem",
    "metaprotocol serve ./mesh --bootstrap envoy.yaml   # and write what an Envoy starts with",
)
_add(
    "try",
    try_call.try_call,
    _RUNNING,
    "metaprotocol try dubbo ./mesh --interface org.example.Orders --method get",
    "metaprotocol try dubbo ./mesh --host orders.shop.svc.cluster.local --method get "
    "--attachment user=ann",
    "metaprotocol try dubbo ./mesh --method get --calls 100 --down 10.0.0.1:20880",
    "metaprotocol try dubbo ./mesh --interface org.example.Orders --method get "
    "--send 127.0.0.1:20880",
)
_add(
    "routes",
    running.routes,
    _LOOKING,
    "metaprotocol routes   # of the Envoy that 'metaprotocol run' started",
    "metaprotocol routes orders --admin-port 9901",
    "metaprotocol routes --json | jq '.[].routes[].name'",
)
_add(
    "clusters",
    running.clusters,
    _LOOKING,
    "metaprotocol clusters",
    "metaprotocol clusters orders --admin-port 9901 --all",
    "metaprotocol clusters --json | jq '.[] | select(.hosts == [])'",
)
_add(
    "validate",
    validate.validate,
    _FILES,
    "metaprotocol validate ./mesh",
    "metaprotocol validate ./mesh --no-envoy   # the resources alone, without an Envoy",
    "metaprotocol validate ./mesh --json | jq '.diagnostics[].message'",
)
_add(
    "generate",
    generate.generate,
    _FILES,
    "metaprotocol generate ./mesh > envoy.yaml   # a whole Envoy, to run without control plane",
    "metaprotocol generate ./mesh -o out/   # one file per kind of xDS resource as well",
    "metaprotocol generate ./mesh --target istio -o envoyfilters.yaml",
)
_add(
    "codecs",
    codecs.codecs,
    _MACHINE,
    "metaprotocol codecs",
    "metaprotocol codecs --json | jq '.[].metadata_keys'",
)
_add(
    "fuzz",
    fuzz.fuzz,
    _CODECS,
    "metaprotocol fuzz protocol.yaml --time 10m --corpus corpus/",
    "metaprotocol fuzz build/acme_codec.so --corpus vectors/",
    "metaprotocol fuzz build/acme_codec.so --engine libfuzzer",
    "metaprotocol fuzz dubbo --seed 7 --junit fuzz.xml --sarif fuzz.sarif",
)
_add(
    "conformance",
    fuzz.conformance,
    _CODECS,
    "metaprotocol conformance protocol.yaml captured/",
    "metaprotocol conformance bolt crashes/bolt-request-0123456789ab --side request",
)
_add(
    "decode",
    decode.decode,
    _CODECS,
    "metaprotocol decode captured.bin --protocol protocol.yaml",
    "metaprotocol decode captured.bin --protocol dubbo --side response --json",
    "metaprotocol decode captured.bin --protocol build/acme_codec.so",
)
_add(
    "doctor",
    doctor.doctor,
    _MACHINE,
    "metaprotocol doctor",
    "metaprotocol doctor --envoy /opt/envoy/bin/envoy",
    "metaprotocol doctor --json | jq '.checks[] | select(.verdict != \"ok\")'",
)
_add(
    "version",
    version_module.version_command,
    _MACHINE,
    "metaprotocol version",
    "metaprotocol version --json",
)


_images = typer.Typer(
    help="Container images with the module, without a container engine.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_images, name="image", rich_help_panel=_FILES)
_add(
    "build",
    image.build,
    "",
    "metaprotocol image build -o docker-archive:proxy.tar   # then: docker load -i proxy.tar",
    "metaprotocol image build --base docker.io/istio/proxyv2:1.31.0 -o registry.local/proxy:1",
    "metaprotocol image build --envoy ./envoy --codec build/acme_codec.so -o oci:images:proxy",
    "metaprotocol image build --kind control-plane -o oci:images:control-plane",
    "metaprotocol image build --label org.opencontainers.image.vendor=Acme --sbom proxy.spdx.json "
    "-o registry.local/proxy:1 -o oci:images:proxy",
    to=_images,
)
_add(
    "index",
    image.index,
    "",
    "metaprotocol image index oci:images:amd64 oci:images:arm64 -o registry.local/proxy:1",
    to=_images,
)

_new = typer.Typer(
    help="Folders to begin with.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_new, name="new", rich_help_panel=_CODECS)
_add(
    "codec",
    new.codec,
    "",
    "metaprotocol new codec acme   # in acme-codec: source, build, vectors, tests",
    "metaprotocol new codec acme -o src/acme",
    to=_new,
)
_add(
    "filter",
    new.filter_,
    "",
    "metaprotocol new filter warden   # in warden-filter: source, build, tests",
    "metaprotocol new filter warden -o src/warden",
    to=_new,
)


def main() -> None:
    """Runs the command that the process's arguments name."""
    # Typer's tracebacks are for our own faults; the variable is its documented switch.
    os.environ.setdefault("TYPER_STANDARD_TRACEBACK", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character, a file name that is no text: shown as an escape.
            stream.reconfigure(errors="backslashreplace")
    code: object = ExitCode.OK
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    except OSError as error:  # of what no command writes, such as help
        report(unwritable(error), as_json=False)
        code = ExitCode.ENVIRONMENT
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        if code == ExitCode.OK and not isinstance(error, BrokenPipeError):
            report(unwritable(error), as_json=False)
            code = ExitCode.ENVIRONMENT
    sys.exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
