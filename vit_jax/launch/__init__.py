"""What clusters need to carry out a sweep, rendered from plain data: no SDK, no network, and nothing is started."""
