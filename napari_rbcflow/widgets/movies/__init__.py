"""A recorded movie, from the file to the number: the movie widget."""
