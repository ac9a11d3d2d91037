"""The base skill: the tools every Expert has, carried out inside its own sandbox.

* :mod:`.definitions` is what the model is offered. It is pure, so the orchestrator imports it too.
* :mod:`.skill` carries calls out: one handler a tool, listed in its table.
"""
