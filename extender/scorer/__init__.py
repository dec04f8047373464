"""What rates nodes: loading, asking within limits, keeping, replacing and falling back. Knows no HTTP."""
