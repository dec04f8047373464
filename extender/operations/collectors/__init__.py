"""What each part of the service shows as metrics, one module per group of parts. Nothing here counts."""
