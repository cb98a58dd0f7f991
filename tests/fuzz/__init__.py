"""Random bytes for each reader of what others have written: `python -m fuzz`, `make fuzz`."""
