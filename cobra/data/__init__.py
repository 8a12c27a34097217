"""Records, processors and batches."""
