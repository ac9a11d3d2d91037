"""The one place that states the runtime's version; the distribution's metadata reads it from here."""

RUNTIME_VERSION = "0.1.0"
