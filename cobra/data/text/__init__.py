"""Plain text, as language models are pretrained on."""
