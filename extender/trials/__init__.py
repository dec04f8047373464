"""Candidates that are tried beside the scorer in use: shadow and experiment."""
