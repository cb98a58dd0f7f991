"""The vLLM server inside a command."""
