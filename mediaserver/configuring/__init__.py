"""``mediaserver config``: a tenant's configuration versions from the command line, dry runs, replays."""
