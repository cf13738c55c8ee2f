"""The module's own configuration, as protobuf messages generated from api/."""
