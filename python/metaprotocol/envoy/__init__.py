"""A stock Envoy as a part of a Python program: its binary, its schema, its configuration, its
process.

``binary`` finds the Envoy executable, ``descriptors`` reads the protobuf schema out of it,
``config`` builds configuration in exactly that schema, and ``process`` runs it.
"""

from metaprotocol.envoy.binary import EnvoyBinary, EnvoyNotFound, find_envoy
from metaprotocol.envoy.descriptors import DescriptorError, EnvoyTypes
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess

__all__ = [
    "DescriptorError",
    "EnvoyBinary",
    "EnvoyError",
    "EnvoyNotFound",
    "EnvoyProcess",
    "EnvoyTypes",
    "find_envoy",
]
