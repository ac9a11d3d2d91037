"""What `make` runs to set a machine up: virtual environment, Docker Engine, base image and images.

Standard library only: it runs with the system's Python before anything is installed.
"""
