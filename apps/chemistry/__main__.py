"""`python -m apps.chemistry` is `tessera chemistry`."""

from apps.chemistry.cli import app

if __name__ == "__main__":
    app(prog_name="tessera chemistry")
