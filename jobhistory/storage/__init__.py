"""The backends: one file each, with its schema, its SQL and its errors inside."""
