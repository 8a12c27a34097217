"""Published checkpoints: read whatever layout they have, write this project's folder or Hugging Face's."""
