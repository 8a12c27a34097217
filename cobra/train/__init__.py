"""Training: the only LightningModule, its stages, data, objectives and callbacks."""
