"""What the control plane costs: ``python -m bench.control_plane [--quick]``.

``world`` writes a folder of services; ``plane`` runs the real control plane over it, in a process
of its own; ``proxies`` are processes with many simulated Envoys each, which subscribe by delta ADS
as Envoy does, acknowledge, and keep nothing. ``measure`` changes files and looks at the clock until
the last of them has acknowledged; ``report`` shows it.
"""
