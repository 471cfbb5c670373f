"""The live picture: frames out of the ring, marks on the cells, and no more of the computer than is left."""
