"""Files: images, tables and JSON, written whole or not at all."""
