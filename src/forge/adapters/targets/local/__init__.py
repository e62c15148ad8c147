"""The one-machine target: replicas as supervised processes behind Envoy."""
