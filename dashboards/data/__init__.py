"""What the dashboards show, read from the study database by SELECTs alone."""
