"""A trained model from its run, and pictures of any size to class ids."""
