"""Which pages are there? One module a page or a family of pages, each a class with its routes."""
