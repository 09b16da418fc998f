"""`python -m api.cli` is `sealproof`."""

from api.cli.main import main

if __name__ == "__main__":
    main()
