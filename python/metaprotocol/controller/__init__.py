"""The control plane as a controller in a Kubernetes cluster.

``istio_writer`` writes EnvoyFilters for istiod to serve, ``status`` says on each resource what
became of it, ``controller`` puts both beside a control plane and lets the holder of a lease do it
alone. ``webhook`` answers the API server what ``admission`` says of an object, and shows a
certificate that ``certificates`` makes or ``certificate_files`` finds.
"""

from metaprotocol.controller.controller import Controller, ControllerOptions, WebhookOptions
from metaprotocol.controller.istio_writer import IstioWriter
from metaprotocol.controller.status import StatusWriter

__all__ = ["Controller", "ControllerOptions", "IstioWriter", "StatusWriter", "WebhookOptions"]
