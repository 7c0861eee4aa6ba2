"""Every setting with its default and meaning, the relations between them, and where their values come from."""
