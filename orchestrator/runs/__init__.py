"""One Run as the orchestrator sees it: its record, the check of what its runner reports, its generations, its life."""
