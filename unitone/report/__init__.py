"""Report pages and the figures on them."""
