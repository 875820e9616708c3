"""Vision Transformers of other libraries, by converting their weights into timm's classes.

blueprint.py: a timm model as plain values; torchvision.py, transformers.py: from a model or a folder to a blueprint and
its weights; wrappers.py: what stands around a model; convert.py: the public `to_timm`. None of them imports the library
whose model it converts: a class is recognised by its module and name.
"""
