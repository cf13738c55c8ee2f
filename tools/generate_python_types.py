"""Generates the Python side of the configuration schema: protobuf's own message classes, typed.

    python tools/generate_python_types.py --proto-dir api --out-dir python

writes <out-dir>/metaprotocol/config/v1/*_pb2.py and the *_pb2.pyi that type checkers read. They are
imported through metaprotocol.config.v1. Needs grpcio-tools, which brings protoc, no older than the
protobuf runtime's major version. Files are only rewritten when their text changes.
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc


def generate(proto_dir: Path, out_dir: Path) -> None:
    """Writes the classes of every .proto file below ``proto_dir``; SystemExit if one is wrong."""
    names = sorted(str(path.relative_to(proto_dir)) for path in proto_dir.rglob("*.proto"))
    includes = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["protoc", f"-I{proto_dir}", f"-I{includes}"]
        arguments += [f"--python_out={folder}", f"--pyi_out={folder}", *names]
        if status := protoc.main(arguments):
            sys.exit(status)
        for made in sorted(Path(folder).rglob("*_pb2.py*")):
            target = out_dir / made.relative_to(folder)
            content = made.read_bytes()
            if made.suffix == ".pyi":
                content = b"# mypy: ignore-errors\n" + content  # protoc's stubs are not strict
            if not target.is_file() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proto-dir", type=Path, required=True)
    parser.add_argument("--out-dir", type=Path, required=True)
    arguments = parser.parse_args()
    generate(arguments.proto_dir, arguments.out_dir)


if __name__ == "__main__":
    main()
