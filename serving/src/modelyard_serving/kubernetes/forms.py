"""What an endpoint can be written as, and where what is written leads; apart, so that a command line is quick."""

from enum import StrEnum


class Form(StrEnum):
    """Of an exported endpoint."""

    HTTPROUTE = "httproute"  # of the Gateway API
    INFERENCESERVICE = "inferenceservice"  # of KServe


class To(StrEnum):
    """Where an HTTPRoute leads."""

    MODELS = "models"
    GATEWAY = "gateway"
