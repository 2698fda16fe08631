"""The training core of opd: it knows on-policy distillation, and no HTTP, no queue, no browser."""

__version__ = "0.1.0"
