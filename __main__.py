"""`python -m playhead` is the `playhead` command."""

from .cli import main

if __name__ == "__main__":
    main()
