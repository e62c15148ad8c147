"""What everything that speaks to a Kubernetes cluster shares: the connection, its errors in words, names, fencing."""
