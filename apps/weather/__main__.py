"""`python -m apps.weather` is `tessera weather`."""

from apps.weather.cli import app

if __name__ == "__main__":
    app(prog_name="tessera weather")
