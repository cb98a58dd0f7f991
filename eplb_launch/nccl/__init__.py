"""How NCCL reads its variables, and what voids a cap."""
