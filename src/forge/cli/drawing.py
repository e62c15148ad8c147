"""Placeholder until graph lands."""
