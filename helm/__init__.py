"""The chart, and what writes its reference."""
