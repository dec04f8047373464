"""Tests of extender.decisions, part by part; the whole over HTTP is in tests/extender/test_decisions.py."""
