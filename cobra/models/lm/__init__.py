"""Language backbones."""
