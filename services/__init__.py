"""The three services: orders, stock and payments."""
