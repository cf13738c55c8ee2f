"""Against a real API server, istiod and sidecars. `make test-mesh` runs these, in a network of
their own; without it they are skipped."""
