"""A client of the one MLflow server."""

import pytest
from mlflow import MlflowClient


@pytest.fixture
def client(mlflow_server):
    return MlflowClient(mlflow_server.uri)
