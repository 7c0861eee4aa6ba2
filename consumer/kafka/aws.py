"""AWS's library that signs tokens, and which of its errors last."""

from __future__ import annotations

import importlib
from typing import Any

from consumer.errors import SettingsError

LASTING = frozenset(
    {
        "AttributeError",  # the signer's own when AWS's chain has found no credentials
        "ConfigNotFound",
        "ConfigParseError",
        "ImportError",
        "InvalidConfigError",
        "ModuleNotFoundError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "PermissionError",
        "ProfileNotFound",
        # codes of AWS's answers
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Errors of AWS's libraries that last: credentials are missing, or permit nothing."""


def aws_signer() -> Any:
    """Return AWS's module, whose ``generate_auth_token(region)`` returns a token and its end in milliseconds."""
    try:
        return importlib.import_module("aws_msk_iam_sasl_signer.MSKAuthTokenProvider")
    except ImportError as error:
        raise SettingsError(
            "kafka.security.mechanism: AWS_MSK_IAM needs the signer of AWS; install session-consumer with the extra"
            " `aws`"
        ) from error


def lasts(error: Exception) -> bool:
    """Whether an error of the signer lasts until somebody acts, by its name or by the code in AWS's answer."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return not LASTING.isdisjoint((type(error).__name__, code))
