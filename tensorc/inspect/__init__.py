"""What the compiler did to a function: where the functions of a file are, their history, how that is shown."""
