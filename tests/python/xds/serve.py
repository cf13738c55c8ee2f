"""A control plane in a process of its own, for tests that kill it: ``serve.py PORT FILE``.

FILE is JSON: type URL to name to resource, in JSON form. Writes "ready" when it serves, and ends
when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from metaprotocol.envoy.binary import find_envoy
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import XdsServer


async def main(port: int, file: Path) -> None:
    types = EnvoyTypes.from_binary(find_envoy().path)
    server = XdsServer(types, port=port)
    content = json.loads(file.read_text())
    server.apply(
        {
            type_url: {
                name: types.parse(type_url.rpartition("/")[2], resource)
                for name, resource in resources.items()
            }
            for type_url, resources in content.items()
        }
    )
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
