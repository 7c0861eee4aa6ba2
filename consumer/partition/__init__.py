"""The state of one partition in one epoch: chunks, watermark, halts and holds, lag. No clock, no client."""
