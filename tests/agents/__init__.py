"""Coding agents, as their users run them, through a gateway in front of scripted providers: `run` drives them."""
