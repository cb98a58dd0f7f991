"""What explain and env print."""
