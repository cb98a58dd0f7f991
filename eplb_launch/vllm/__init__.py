"""What vLLM does with its arguments, release by release."""
