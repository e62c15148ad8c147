"""A real Kubernetes control plane on loopback for the tests, and what plays its nodes."""
