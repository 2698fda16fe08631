"""What a job may take, said before anything of it runs."""

from api.estimate.estimate import estimate

__all__ = ["estimate"]
