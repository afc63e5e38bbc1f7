"""Joins words."""


def join(*words):
    return " ".join(words)
