"""Observations as plain numbers that any thread may read: counters, histograms, failures, loop time, stalls."""
