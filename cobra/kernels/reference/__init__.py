"""Plain PyTorch: the spec of every op. Runs on every device, in float64 too, and exports."""
