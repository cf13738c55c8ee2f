"""``image``: container images without a daemon."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import Json, line, stderr, stdout, write_json
from metaprotocol.envoy.binary import find_envoy, find_module
from metaprotocol.image import ImageError, ImageOptions, Kind
from metaprotocol.image.errors import BadPlace
from metaprotocol.image.options import Progress
from metaprotocol.image.places import Place, parse_place

if TYPE_CHECKING:
    from types import ModuleType

Output = Annotated[
    list[str],
    typer.Option(
        "--output",
        "-o",
        help="oci:FOLDER[:TAG], docker-archive:FILE or HOST/NAME:TAG; may be given again",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="speak to registries without TLS (loopback: always)")
]


@foreseeable
def build(
    output: Output,
    envoy: Annotated[Path | None, typer.Option(help="the Envoy to put in")] = None,
    base: Annotated[
        str, typer.Option(help="an image to add the module to, written like an output")
    ] = "",
    kind: Annotated[Kind, typer.Option(help="what the image is for")] = Kind.PROXY,
    module: Annotated[Path | None, typer.Option(help="the module to put in")] = None,
    codec: Annotated[list[Path] | None, typer.Option(help="a codec's library")] = None,
    filter_library: Annotated[
        list[Path] | None, typer.Option("--filter", help="a filter's library")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, an OCI label")] = None,
    sbom: Annotated[Path | None, typer.Option(help="write the SPDX document here too")] = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Builds an image: Envoy with the module and the C library, or the module as one layer on any
    base, such as Istio's proxy.

    Nothing of a container engine is needed. The same input gives the same image, byte for byte.
    """
    if base and envoy is not None:
        raise Failure(ExitCode.USAGE, "Give --envoy or --base, not both: a base has its own Envoy.")
    if base and kind is Kind.CONTROL_PLANE:
        raise Failure(ExitCode.USAGE, "The control plane's image has no base.")
    try:
        options = ImageOptions(
            module=find_module(module),
            envoy=None if base else find_envoy(envoy),
            base=parse_place(base, insecure=insecure) if base else None,
            kind=kind,
            codecs=tuple(codec or ()),
            filters=tuple(filter_library or ()),
            labels=dict(_label(text) for text in label or ()),
        )
        built = _builder().build_image(options, _places(output, insecure), _progress(as_json))
    except ImageError as error:
        raise _failure(error) from None
    if sbom is not None:
        _write(sbom, json.dumps(built.sbom, indent=1, sort_keys=True) + "\n")
    if as_json:
        layers = [{"digest": digest, "bytes": size} for digest, size in built.layers]
        write_json({"digest": built.digest, "architecture": built.architecture, "layers": layers})
        return
    line(
        stdout(),
        f"{built.digest}  linux/{built.architecture}, {built.size / 1e6:.1f} MB in "
        f"{len(built.layers)} layers",
    )


@foreseeable
def index(
    images: Annotated[list[str], typer.Argument(help="one image for each processor")],
    output: Output,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Joins images for several processors into one, from which each takes its own."""
    try:
        sources = [parse_place(text, insecure=insecure) for text in images]
        digest = _builder().join_index(sources, _places(output, insecure), _progress(as_json))
    except ImageError as error:
        raise _failure(error) from None
    if as_json:
        write_json({"digest": digest})
        return
    line(stdout(), digest)


def _write(path: Path, text: str) -> None:
    """The file whole, or as it was."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise Failure(ExitCode.ENVIRONMENT, f"Cannot write {path}: {error.strerror}.") from None


def _builder() -> ModuleType:
    """What needs more than the package itself does; Failure if that is not installed."""
    try:
        from metaprotocol.image import build as builder
    except ImportError as error:
        raise Failure(
            ExitCode.ENVIRONMENT,
            f"Images need more packages than are installed: {error}.",
            "Install them with: pip install 'metaprotocol[image]'",
        ) from None
    return builder


def _places(texts: list[str], insecure: bool) -> list[Place]:
    return [parse_place(text, insecure=insecure) for text in texts]


def _label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise Failure(ExitCode.USAGE, f"--label {text!r} is not KEY=VALUE.")
    return key, value


def _progress(as_json: bool) -> Progress:
    return (lambda _: None) if as_json else lambda text: line(stderr(), text)


def _failure(error: ImageError) -> Failure:
    text = str(error)
    code = ExitCode.USAGE if isinstance(error, BadPlace) else ExitCode.ENVIRONMENT
    return Failure(code, text[:1].upper() + text[1:] + ".")
