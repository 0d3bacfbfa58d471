"""Products by cuBLASLt and convolutions by cuDNN, where these are installed; loaded when a program with one runs."""
