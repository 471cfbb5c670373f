"""What napari opens and saves: sessions, movies, cells, the sample."""
