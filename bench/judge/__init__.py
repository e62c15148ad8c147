"""`python -m bench.judge`: what judges cost and how often they are wrong, measured with the shipped code."""
