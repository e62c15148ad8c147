"""What people do with a project: one interface, and two ways in. In this process, or through a server."""
