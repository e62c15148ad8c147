"""Rendering: view models become text. Nothing here talks to the engine."""
