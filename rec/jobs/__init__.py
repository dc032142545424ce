"""What the command line can do: one module a mode, each with `run(loaded, args, world)`."""
