"""The servers that run on this machine."""
