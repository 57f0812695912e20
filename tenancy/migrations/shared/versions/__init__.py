"""The revisions, in order; the last part of a revision's name is the file's ``user_version``."""
