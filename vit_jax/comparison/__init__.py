"""Two runs side by side: what differs in their records, and the first row and tensor at which they part."""
