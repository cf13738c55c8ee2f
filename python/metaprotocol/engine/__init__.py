"""The engine in Python: the same code that runs in Envoy, with a host that Python implements.

``Codec`` decodes and encodes messages of one connection; ``Config`` is a checked configuration;
``Engine`` is the whole proxy of one worker, in virtual time::

    engine = Engine(host)                      # host: see Host
    engine.set_cluster("c", 1, "{}", [("10.0.0.1:20880", 1, True)])
    engine.open_session(Config(json_text), session=1)
    engine.session_data(1, [request_bytes])    # host.open_lease(...) is called
    engine.lease_ready(lease)                  # host.write_lease(...) is called

It is what the property tests drive through a simulated world.
"""

from metaprotocol._native._engine import (
    Codec,
    Config,
    ConfigInvalid,
    ConnectionInfo,
    DecodeError,
    Direction,
    Engine,
    LeaseCloseReason,
    LocalReply,
    Message,
    MessageKind,
    ReplyStatus,
    codec_names,
)
from metaprotocol.engine.host import Host

__all__ = [
    "Codec",
    "Config",
    "ConfigInvalid",
    "ConnectionInfo",
    "DecodeError",
    "Direction",
    "Engine",
    "Host",
    "LeaseCloseReason",
    "LocalReply",
    "Message",
    "MessageKind",
    "ReplyStatus",
    "codec_names",
]
