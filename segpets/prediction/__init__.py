"""From a picture of any kind to masks, overlays, cutouts and composites.

Nothing heavy is imported here: a command lists its sources before it loads a model.
"""
