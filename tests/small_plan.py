"""A plan of eleven tasks: a teacher, five sets of its images, and a model quantized with each."""

from bench.engine.task import Task

ROOT = Task("teacher", {"epochs": 1})
IMAGES = [Task("images", {"seed": seed}, {"teacher": ROOT}) for seed in range(5)]
LEAVES = [Task("quantize", {"bits": 4}, {"teacher": ROOT, "images": images}) for images in IMAGES]
