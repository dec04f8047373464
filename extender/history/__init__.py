"""What is remembered of decisions: the ledger, its file, outcomes, explanations and aggregates."""
