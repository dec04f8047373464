"""What the service knows of the cluster, and where it learns it."""
