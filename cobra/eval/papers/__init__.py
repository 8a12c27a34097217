"""Papers: their tables, and what makes them here, a yaml each."""
