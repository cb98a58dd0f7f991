"""The version: one place, read by the build, `--version` and the reports."""

__version__ = "0.2.0"
