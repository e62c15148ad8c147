"""What Forge costs, against the floor: the same work with nothing around it. `make bench`."""
