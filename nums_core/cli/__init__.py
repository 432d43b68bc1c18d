"""The `nums` command."""

from nums_core.cli.main import main as main
