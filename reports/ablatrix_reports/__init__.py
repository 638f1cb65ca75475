"""Finished trials to tables, statistics, figures and pages; reads the store, never trains."""
