"""GGUF files for llama.cpp: what is written into them, and the library that reads them."""
