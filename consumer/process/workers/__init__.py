"""Several worker processes in one group, and the parent process that starts them and follows them."""
