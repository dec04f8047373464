"""The evidence: baselines, the protocol that compares scorers, the oracle, the report. Needs no torch."""
