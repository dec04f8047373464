"""The report of an evaluation: goals, figures, Markdown and JSON."""
