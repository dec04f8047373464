"""The contract tests use the service fixtures of the extender's tests."""

from tests.extender.conftest import bundle_path, plain_logs, run_service

__all__ = ["bundle_path", "plain_logs", "run_service"]
