"""What runs inside a sandbox: one Run of one Expert, as process 1 of its container.

Nothing here is imported by name for use elsewhere; the types that both sides of the bus share are in
:mod:`expert_runner.contract`.
"""
