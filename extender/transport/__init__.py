"""Connections: HTTP/1.1 parsing shortcuts, limits and TLS. Knows no Kubernetes object."""
