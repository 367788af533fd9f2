"""Who changed what. `record` is called by the functions that change rows, in their transaction."""
