"""Shell strings, as the shell would read them."""
