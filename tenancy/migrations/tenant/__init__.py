"""One tenant's configuration versions and calls."""
