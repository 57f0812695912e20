"""A softphone for the command line: it calls, asks, listens, measures on the wire and keeps the recording."""
