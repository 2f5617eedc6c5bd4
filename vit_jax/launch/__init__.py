"""Job descriptions for clusters, rendered from plain data without an SDK or a network; nothing is started."""
