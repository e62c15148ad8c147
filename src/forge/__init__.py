"""Forge: release management for SREs, from source to a judged, self-rolling-back release."""

__version__ = "0.1.0"
