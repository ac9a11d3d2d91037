"""The gateway to the models: the only code that holds provider keys."""
