"""The library: what programs that embed the runtime call."""
