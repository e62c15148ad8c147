"""A small shop: the sample service that Forge releases."""
