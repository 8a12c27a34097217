"""The configured systems, their parts and costs: `cobra models` and docs/models.md."""
