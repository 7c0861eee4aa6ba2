"""One partition in one epoch, as plain values and state: chunks, the watermark, halts and holds, lag. No clock, no client."""
