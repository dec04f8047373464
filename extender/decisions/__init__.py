"""Deciding, and remembering what was decided and why."""
