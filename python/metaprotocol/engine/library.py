"""The process in which `metaprotocol.codec_library` looks at a library.

python -m metaprotocol.engine.library PATH [OPTIONS-AS-JSON]
"""

from __future__ import annotations

import json
import sys

from metaprotocol.engine import Codec


def main() -> None:
    """Loads the library that the first argument names, and says what it is, in its last line."""
    path = sys.argv[1]
    try:
        traits = Codec("", sys.argv[2] if len(sys.argv) > 2 else "", library=path).traits
        said = {"name": traits["name"], "metadata_keys": traits["metadata_keys"]}
    except ValueError as error:
        said = {"error": str(error).removeprefix(f"{path} ")}
    sys.stdout.write("\n" + json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
