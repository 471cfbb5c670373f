"""The only Qt and napari. No science, no networks; a run goes on in a process of its own (`worker`).

`live`, `movie`, `trend` and `settings` are the docks. `dock` is what they share; `live_form`, `movie_form`
and `run_form` are what a person chooses; `picture` is what napari draws, `result` the number, `cells` the
cells one by one; `remembered` is what is kept for the next day, `npe2_hooks` what napari opens and saves.
"""
