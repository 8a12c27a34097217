"""`python -m cobra`."""

from cobra.cli import main

if __name__ == "__main__":
    main()
