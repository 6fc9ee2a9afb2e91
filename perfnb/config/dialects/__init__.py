"""How the libraries that train call their knobs: one file per library, the plain names where none is recognised."""
