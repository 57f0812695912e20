"""The media server: composition root, edge, call pipelines, model process, softphone."""
