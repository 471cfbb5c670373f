"""The only Qt and napari. No science."""
