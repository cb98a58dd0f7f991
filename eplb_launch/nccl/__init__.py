"""What NCCL makes of its variables, and what makes a cap void."""
