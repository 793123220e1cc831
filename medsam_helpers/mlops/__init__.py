"""The MLOps pipeline: tracked, tuned, registered, launched, automated. An extra: the core never imports it."""

import os

os.environ |= {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is gone is noticed soon: the journal tries again by itself
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    **os.environ,
    "MLFLOW_DISABLE_TELEMETRY": "true",  # the server has both from here
    "DO_NOT_TRACK": "true",
}
