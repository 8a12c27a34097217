"""What every configured system is made of and what it costs: `cobra models` and docs/models.md."""
