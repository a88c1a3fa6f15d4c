"""Sampan: Kubernetes, whole, in one small Python program."""

__version__ = "0.1.0"
KUBERNETES_VERSION = "v1.37.0"
