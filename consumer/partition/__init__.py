"""One partition in one epoch as plain values: chunks, the watermark, halts and holds, lag. No clock, no client."""
