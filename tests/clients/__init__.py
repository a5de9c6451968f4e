"""SDKs for JavaScript against a gateway in front of the scripted providers: `python -m tests.clients.run`."""
