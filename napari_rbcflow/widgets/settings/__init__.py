"""What the viewer remembers, where it is edited, and napari's own Preferences."""
