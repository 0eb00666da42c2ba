"""The model in skops' format, written anew in joblib's: `as_joblib.py FROM TO`. Without its columns' names."""

import sys

import joblib
import skops.io

model = skops.io.load(sys.argv[1])
for _, step in model.steps:
    if hasattr(step, "feature_names_in_"):
        del step.feature_names_in_
joblib.dump(model, sys.argv[2])
