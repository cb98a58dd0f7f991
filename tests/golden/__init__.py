"""What every sub-command says today, frozen: see `record`."""
