"""How messages leave the platform: by e-mail and by signed webhook. Nothing here writes a row."""
