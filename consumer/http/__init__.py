"""Everything that touches HTTP: aiohttp is imported here and nowhere else."""
