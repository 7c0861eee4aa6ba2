"""The HTTP server and the status page; the only folder that imports aiohttp."""
