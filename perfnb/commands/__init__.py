"""The commands of `perfnb`: one file for each, found by being here; a new one is a new file and nothing else.

A command's file has `add_to(subparsers)`, which adds the parser of that name and sets `answer` on it: a function that takes the
parsed options and gives what to print, a text or an `Answer`. Files without `add_to` are what commands share.
"""
