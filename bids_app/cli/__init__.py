"""The commands that a user types: arguments in, exit code out."""
