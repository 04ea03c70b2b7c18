"""A classifier behind HTTP, in the words of the services that it takes the place of."""
