"""Time and memory of the commands, of the engines and of single optimizations."""
