"""Dead letters as plain values: why a record became one, what its headers say, and which were redriven. No client, no clock."""
