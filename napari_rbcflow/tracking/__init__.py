"""From frames to tracks: background, detection, linking, crops."""
