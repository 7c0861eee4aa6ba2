"""The loops of the contestants, one module each, started by the driver as ``python -m bench.loops.NAME JOB``."""
