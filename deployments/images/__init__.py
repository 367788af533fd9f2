"""Images of environments: where they are looked for, how they are built, what is in them."""
