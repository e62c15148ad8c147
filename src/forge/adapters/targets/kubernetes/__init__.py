"""Versions as workloads of a Kubernetes cluster."""
