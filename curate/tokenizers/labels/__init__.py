"""Structured labels of pictures, made by small plug-ins and written as ids."""
