"""Opt-in tests with real servers: see CONTRIBUTING.md."""
