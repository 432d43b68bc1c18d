"""Model files (GGUF, safetensors) as the arrays of a model."""
