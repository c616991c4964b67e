"""What specs/vectors is made by. Nothing of the package imports it."""
