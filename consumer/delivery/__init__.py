"""Delivery of records: decode, dispatch, call, handle failures, commit. The guarantees are kept here."""
