"""The contract between the orchestrator and a runner: types, wire format and state machine, without any I/O.

Import the module you need: a runner starts in a fresh container for every Run, so this package imports nothing on its
own.
"""
