"""What operators see of the server: metrics, health, logs and traces."""
