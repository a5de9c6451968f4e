"""The project: settings, URLs, the ASGI application and the servers that run it. Nothing imports this package."""

__version__ = "0.1.0"
