"""Replays: a Job's record checked against what the state machine makes of it, and against the Job run again."""
