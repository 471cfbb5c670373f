"""From a finished track to a label.

On the way there, in this order: `sampling` chooses the frames, `preparing` takes the light out of them,
`weight_files` reads what lies in ``weights/`` and `networks` makes of it, `batches` runs a stage over many
tracks (`on_device` does the first two on a graphics card), `two_stage` gives the label.

Before and beside it: `published` reads labelled sequences, `training` makes weights of them, `evaluation`
says how good these are, `grid` makes the paper's tables anew.
"""
