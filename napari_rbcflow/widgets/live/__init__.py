"""A camera, from the form to the number: the live widget."""
