"""The zarr ring of the last frames and crops, and its ledger."""
