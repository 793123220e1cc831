"""From a model and cases to scores with intervals, and what the scores say."""
