"""The process in which `metaprotocol.codec_library` looks at a library.

python -m metaprotocol.engine.library codec|filter PATH [OPTIONS-AS-JSON]
"""

from __future__ import annotations

import json
import sys

from metaprotocol.engine import Codec, Config


def main() -> None:
    """Loads the library that the arguments name, and says what it is, in its last line."""
    kind, path, options = (*sys.argv[1:], "")[:3]
    said: dict[str, object]
    try:
        if kind == "filter":
            said = _filter(path, options)
        else:
            traits = Codec("", options, library=path).traits
            said = {"name": traits["name"], "metadata_keys": traits["metadata_keys"]}
    except ValueError as error:
        said = {"error": str(error).removeprefix(f"{path} ")}
    sys.stdout.write("\n" + json.dumps(said) + "\n")


def _filter(path: str, options: str) -> dict[str, object]:
    library = {"path": path, "options": json.loads(options or "{}")}
    table = {"name": "check", "filters": [{"name": "check", "library": library}]}
    # With any codec: what a filter makes of this one is told by the configuration it is used in.
    Config(json.dumps({"name": "check", "protocol": {"codec": "thrift"}, "route_tables": [table]}))
    return {"name": path, "metadata_keys": []}


if __name__ == "__main__":
    main()
