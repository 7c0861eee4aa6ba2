"""Dead letters as plain values: causes, headers, filters and the inventory. No client, no clock."""
