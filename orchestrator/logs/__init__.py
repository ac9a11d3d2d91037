"""What `perstack log` shows: summaries, events and conversations of Jobs, read from their history."""
