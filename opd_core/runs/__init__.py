"""What a job leaves behind: SQL records, leases, live streams, artifacts. No torch here."""
