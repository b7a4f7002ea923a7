"""What the terminal shows: text from outside made harmless, tables, progress."""
