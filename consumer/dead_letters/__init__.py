"""Dead letters as plain values: their causes, headers, filters and inventory. No client, no clock."""
