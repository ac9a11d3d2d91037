"""What the user wrote: `perstack.toml`, env files and the options that name them."""
