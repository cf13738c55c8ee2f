"""MetaProtocol: any layer-7 RPC protocol through a stock Envoy."""
