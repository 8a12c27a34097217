"""Programs for ExecuTorch: what a phone runs of a model, as functions whose state goes in and comes out."""
