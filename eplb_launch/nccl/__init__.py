"""What NCCL and DeepEP do with a cap."""
