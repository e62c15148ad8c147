"""Translating the manifests of other tools into a pipeline, with everything that could not be translated told. Pure."""
