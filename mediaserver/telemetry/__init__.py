"""What a node tells of itself: metrics, health and logs, without a tenant's, a caller's or a call's name in a metric."""
