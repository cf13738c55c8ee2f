"""Whose Envoys the configuration is for, as commands ask for it."""

from enum import Enum


class Target(Enum):
    """Who uses the configuration."""

    ENVOY = "envoy"
    ISTIO = "istio"
