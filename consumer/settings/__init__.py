"""Settings: their types, defaults, meanings and relations, and the sources of their values."""
