"""The only Qt and napari. No science, no networks; a run goes on in a process of its own (`worker`).

`live` and `movies` are the two docks, made of `picture` (what napari draws), `result` (the number), `cells`
(one by one) and the pieces that lie here; `files` is what napari opens and saves, `settings` what is
remembered.
"""
