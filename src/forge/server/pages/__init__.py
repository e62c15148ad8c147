"""The dashboard: pages that the server renders, with little script."""
