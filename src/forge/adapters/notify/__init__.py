"""Part of Forge; see docs/architecture.md for what lives here."""
