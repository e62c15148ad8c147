"""Machines and browsers come in here: the API, the pages, webhooks, and who may do what."""
